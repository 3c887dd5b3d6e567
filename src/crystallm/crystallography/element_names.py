"""Elements as files name them: in any case, with charges, and in labels of sites.

    element("CL")      Cl        element("Fe3+")    Fe        element("D")    H
    of_label("FE1")    Fe        of_label("OH1")    O         of_label("M1")  an error

A name that can be read in two ways is rejected: the caller may name the elements of the printed formula,
which then decide.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from crystallm.crystallography.elements import SYMBOLS_BY_NUMBER
from crystallm.errors import TextError

if TYPE_CHECKING:
    from collections.abc import Collection

SYMBOLS = frozenset(SYMBOLS_BY_NUMBER)
ISOTOPES = {"D": "H", "T": "H"}
HYDRATED = frozenset({"OH", "OW", "OD", "WAT", "HOH", "DOD", "H2O", "D2O", "OH2", "HYDROXYL", "WATER"})
"""Names, in capitals, of an oxygen whose hydrogen atoms are not located."""
_NOT_ATOMS = frozenset({"VA", "VAC", "CAT", "ANI", "CEN", "CNT", "CENT", "DUM", "ORG"})
"""Labels, in capitals, of vacancies, unknown ions and centers of rings."""
_RARE = frozenset(SYMBOLS_BY_NUMBER[94:])  # Am and heavier: letters of a label are rarely meant so
_CHARGED = re.compile(r"([A-Za-z]{1,2})(?:\(?(?:\d*\.?\d*[+-]+|[+-]\d*\.?\d*|\d+)\)?)?")
_WATER = re.compile(r"(OH2?|H2O|HOH|OD|D2O|DOD)(?:1?[-+]|\d*)", re.IGNORECASE)
_LABEL = re.compile(r"[A-Za-z]+")


def _is_two(symbol: str, name: str) -> bool:
    """Return whether two capital letters with a number, without a sign, may be two elements."""
    both = symbol[0] in SYMBOLS and symbol[1].upper() in SYMBOLS
    return symbol in _RARE or (both and name[-1:].isdigit() and not set(name) & {"+", "-"})


@lru_cache(maxsize=4096)
def element(name: str, *, tritium: bool = True) -> str:
    """Return the element of a name that is one symbol: any case, a charge or a number after it.

    Args:
        name: such as `Na`, `NA`, `Na1+`, `Fe+3`, `O2-`, `D`.
        tritium: whether `T` is tritium; else it is rejected.

    Raises:
        TextError: it is not an element.
    """
    match = _CHARGED.fullmatch(name.strip())
    symbol = match[1].capitalize() if match is not None else ""
    if len(symbol) == 2 and name[1:2].isupper() and _is_two(symbol, name):
        symbol = ""  # CO3 and NH4 are groups of atoms, but CO, FE3 and CO3+ are not
    if symbol == "D" or (symbol == "T" and tritium):
        return ISOTOPES[symbol]
    if symbol in SYMBOLS:
        return symbol
    why = ""
    if name in ("X", "Xx", "vacancy"):
        why = ": a vacancy, a dummy, or an atom that is not known"
    elif symbol == "T":
        why = ": it may be tritium or a tetrahedral site"
    elif re.search(r"[A-Za-z].*[+/,:;].*[A-Za-z]", name):
        why = ": a site shared by several elements"
    raise TextError(f"{name[:30]!r} is not an element{why}")


def of_type(name: str, printed: Collection[str] = ()) -> tuple[str, str]:
    """Return the element of the type of a site, and a note on how it was read ("" for a plain symbol).

    Args:
        name: of the type.
        printed: symbols in the printed sum formula, if there is one.

    Raises:
        TextError: it is not an element.
    """
    if is_water(name):
        return "O", f"{name} is read as oxygen, without its hydrogen"
    return element(name, tritium="T" in printed), ""


def is_water(name: str) -> bool:
    """Return whether a name is that of the oxygen of water or of a hydroxyl group."""
    return name.upper() in HYDRATED or _WATER.fullmatch(name) is not None


def of_label(label: str, printed: Collection[str] = ()) -> tuple[str, str]:
    """Return the element of a label, such as `Fe1` or `O2A`, and a note on how it was read.

    The letters before the first digit count: a symbol, and perhaps capital letters after it. Where they are
    all capitals, two can be one symbol or two (`CO1`): the printed formula decides, or that the second letter
    is no element (`FE1`).

    Args:
        label: of a site whose type is missing.
        printed: symbols in the printed sum formula, if there is one.

    Raises:
        TextError: it does not name an element, or may name two.
    """
    match = _LABEL.match(label)
    letters = match[0] if match is not None else ""
    if is_water(letters) or is_water(label):
        return "O", f"the label {label} is read as oxygen"
    found = _candidates(letters)
    if len(found) > 1 and printed:
        found = [symbol for symbol in found if symbol in printed] or found
    if len(found) > 1 and letters[1].upper() not in SYMBOLS and found[0] not in _RARE:
        del found[1:]
    if len(found) > 1:
        raise TextError(
            f"the label {label[:20]!r} may name {found[0]} or {found[1]}, and the file has no types of sites"
        )
    if not found:
        raise TextError(f"the label {label[:20]!r} names no element, and the file has no type of the site")
    symbol = ISOTOPES.get(found[0], found[0])
    plain = letters.capitalize() == symbol
    return symbol, "" if plain else f"the label {label} is read as {symbol}"


def _candidates(letters: str) -> list[str]:
    """Return the symbols that the letters of a label can mean, two letters first."""
    if not letters or len(letters) > 3 or letters.upper() in _NOT_ATOMS | {"T", "X"}:
        return []
    head, tail = letters[:2].capitalize(), letters[2:]
    single = letters[0].upper()
    if len(letters) == 1:
        return [single] if single in SYMBOLS or single == "D" else []
    if letters[1].islower() and not letters.islower():
        # Cat and Vac name no element, but AlT and NaA do; Oa and Ow are oxygen, as no element is called so.
        if head in SYMBOLS:
            return [head] if not tail or tail.isupper() else []
        return ["O"] if single == "O" and not tail else []
    if tail and letters.islower():
        return []
    found = [head] if head in SYMBOLS else []
    if (single in SYMBOLS or single == "D") and not tail:
        found.append(single)
    return found
