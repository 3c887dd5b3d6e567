"""A formula as people write it -> what the unit cell holds.

    parse("(NH4)2SO4")     {"N": 2, "H": 8, "S": 1, "O": 4}
    cell("TiO2", z=2)      2 x TiO2 = Ti2O4
    cell("Ti2O4")          the cell as written: Ti2O4 = 2 x TiO2
    system("O-Ti")         ("Ti", "O")

Knows brackets, hydrates, subscripts and blanks; knows no charges, isotopes, fractions or names, and nothing
of structures. The cell is the conventional one of the space group, as in the texts.
"""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

from crystallm.crystallography import elements
from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable


MAX_ATOMS = 2000
"""Atoms in one cell, at most. The conventional cells that the networks have read hold far fewer."""

_MAX_LENGTH = 500

_MOST_MULTIPLIED = 100  # atoms of a formula in whole numbers that is proposed for one with fractions

_OPEN = {"(": ")", "[": "]", "{": "}"}

_TOKEN = re.compile(r"\s*(?:(?P<symbol>[A-Z][a-z]?)|(?P<count>\d+(?:\.\d+)?)|(?P<mark>[()\[\]{}·]))")

_DOTS = str.maketrans(dict.fromkeys("•⋅∙*⸱", "·"))


@dataclass(frozen=True, slots=True)
class Cell:
    """What the conventional cell holds.

    Attributes:
        composition: (symbol, count) by rising electronegativity, counts of the whole cell.
        reduced_formula: one formula unit, `TiO2`.
        z: formula units in the cell.
        note: how the formula was read, one line for a person.
    """

    composition: tuple[tuple[str, int], ...]
    reduced_formula: str
    z: int
    note: str

    @property
    def formula(self) -> str:
        """The cell's formula, `Ti2O4`."""
        return _written(self.composition)

    @property
    def n_atoms(self) -> int:
        """Atoms in the cell."""
        return sum(count for _, count in self.composition)


def cell(formula: str, z: int | None = None) -> Cell:
    """What the cell holds.

    With `z` the cell holds z formula units, where a formula unit is the reduced formula, however the formula
    was written: `TiO2` and `Ti2O4` with z = 2 are both Ti2O4. So is Z counted in a CIF. Without `z` the
    formula is the cell as written. Diatomic elements and peroxides stay whole: z = 2 of `O2` is O4, of
    `Na2O2` Na4O4.

    Raises:
        InputError: not a formula, or z is no whole number from 1, or more than MAX_ATOMS atoms.
    """
    unit, factor = _unit(formula)
    reduced = _written(unit)
    held = tuple((symbol, count * factor) for symbol, count in unit)
    written = _written(held)
    if z is None:
        note = f"cell as written: {written}" + (f" = {factor} x {reduced}" if factor > 1 else "")
        return _checked(Cell(held, reduced, factor, note), formula)
    if isinstance(z, bool) or not isinstance(z, int) or z < 1:
        raise InputError(f"z = {z!r} formula units: write a whole number from 1, such as z = 4")
    composition = tuple((symbol, count * z) for symbol, count in unit)
    note = f"z = {z}: cell {_written(composition)}" + (f" = {z} x {reduced}" if z > 1 else "")
    if factor > 1:
        note += f" (the formula unit of {written} is {reduced})"
    return _checked(Cell(composition, reduced, z, note), formula)


def system(text: str) -> tuple[str, ...]:
    """The elements of a chemical system, by rising electronegativity.

    `Li-Fe-O`, `Li,Fe,O`, `Li Fe O`, `LiFeO`.

    Raises:
        InputError: what is no element, or has no token; counts, which a formula has and a system has not.
    """
    shown = text.strip()[:60]
    if len(text) > _MAX_LENGTH or not shown:
        raise InputError(f"elements = {shown!r}: write symbols with - between them, such as Li-Fe-O")
    plain = unicodedata.normalize("NFKC", text).strip()
    if re.search(r"[\d.*()\[\]]", plain):
        raise InputError(
            f"elements = {shown!r} has counts or brackets: write symbols alone, such as Li-Fe-O, "
            "or ask for a formula"
        )
    found: list[str] = []
    for piece in re.split(r"[-\u2010-\u2015\u2212,;/+\s]+", plain):
        symbols = re.findall(r"[A-Z][a-z]?", piece)
        if "".join(symbols) != piece:
            raise InputError(
                f"elements = {shown!r}: {piece[:20]!r} is no element"
                f"{_hint(_respelled(piece)[:1]) or ': write symbols of the periodic table, such as Li-Fe-O'}"
            )
        found += [_element(symbol, shown) for symbol in symbols]
    if not found:
        raise InputError(f"elements = {shown!r}: write symbols with - between them, such as Li-Fe-O")
    return tuple(elements.electronegativity_order(dict.fromkeys(found)))


@lru_cache(maxsize=256)
def _unit(formula: str) -> tuple[tuple[tuple[str, int], ...], int]:
    """The formula unit, (symbol, count) by rising electronegativity, and how many of it were written."""
    counts = parse(formula)
    order = elements.electronegativity_order(counts)
    factor = math.gcd(*counts.values())
    if tuple(order) in elements.DOUBLED and len(set(counts.values())) == 1 and factor % 2 == 0:
        factor //= 2
    return tuple((symbol, counts[symbol] // factor) for symbol in order), factor


def parse(text: str) -> dict[str, int]:
    """Atoms of each element in a formula, in the order in which they are written.

    `TiO2`, `Ti2 O4`, `TiO₂`, `TiO_2`, `(NH4)2SO4`, `[Cu(NH3)4]SO4`, `CaSO4·2H2O`, `CaSO4.2H2O`, `2TiO2`.

    Raises:
        InputError: with the part that cannot be read and, where one is near, what may be meant.
    """
    if len(text) > _MAX_LENGTH:
        raise InputError(
            f"a formula of {len(text)} characters, {text[:20]!r}...: at most {_MAX_LENGTH} are read"
        )
    shown = text.strip()
    plain = _plain(text)
    if not plain:
        raise InputError("the formula is empty: write one, such as TiO2")
    # A stack of open groups; at its bottom the part between two dots, whose leading number multiplies it.
    total: dict[str, int] = {}
    stack: list[tuple[str, dict[str, int]]] = [("", {})]
    multiplier: int | None = None
    last: dict[str, int] | None = None  # what a count that comes next would multiply
    counted = False
    position = 0

    def close_part() -> None:
        nonlocal multiplier
        if len(stack) > 1:
            raise InputError(f"{shown!r}: a bracket is not closed: {_OPEN[stack[-1][0]]!r} is missing")
        if not stack[0][1]:
            raise InputError(f"{shown!r}: a part without an element: write one, such as TiO2 or CaSO4·2H2O")
        _add(total, stack[0][1], multiplier or 1)
        stack[0] = ("", {})
        multiplier = None

    while position < len(plain):
        match = _TOKEN.match(plain, position)
        if match is None:
            raise _unreadable(plain[position:].lstrip(), shown)
        position = match.end()
        if symbol := match["symbol"]:
            last, counted = {_element(symbol, shown): 1}, False
            _add(stack[-1][1], last, 1)
        elif number := match["count"]:
            if counted:
                raise InputError(
                    f"{shown!r}: two numbers in a row: write '·' between parts, as in CaSO4·2H2O"
                )
            count, counted = _count(number, shown), True
            if last is not None:
                _add(stack[-1][1], last, count - 1)
            elif len(stack) == 1 and multiplier is None and not stack[0][1]:
                multiplier = count
            else:
                raise InputError(f"{shown!r}: the number {number} stands after no element and no bracket")
            last = None
        elif (mark := match["mark"]) == "·":
            close_part()
            last, counted = None, False
        elif mark in _OPEN:
            stack.append((mark, {}))
            last, counted = None, False
        else:
            opened, group = stack.pop() if len(stack) > 1 else ("", {})
            if not opened or _OPEN[opened] != mark:
                raise InputError(f"{shown!r}: the bracket {mark!r} closes none: write (NH4)2SO4")
            if not group:
                raise InputError(f"{shown!r}: an empty bracket: write (NH4)2SO4")
            _add(stack[-1][1], group, 1)
            last, counted = group, False
    close_part()
    return total


def short(text: str) -> str:
    """A formula that tells all counts, such as pymatgen's `Ca1 Ti1 O3`, as formulas are shown: `CaTiO3`."""
    pieces = re.findall(r"([A-Z][a-z]?)([\d.]*)", text)
    shown = "".join(symbol + ("" if count == "1" else count) for symbol, count in pieces)
    return _told_apart(shown)


def _plain(text: str) -> str:
    """The formula in ASCII, with '·' between its parts."""
    plain = unicodedata.normalize("NFKC", text.translate(_DOTS)).translate(_DOTS).strip()
    plain = re.sub(r"_\{?(\d+)\}?", r"\1", plain.replace("$", ""))
    # A dot is a decimal point between digits, save in a hydrate: CaSO4.2H2O, but Li0.5CoO2.
    return re.sub(r"\.(?=\s*[A-Z(\[{])|(?<=[\d)\]}])\.(?=\s*\d*\s*H2O\b)", "·", plain)


def _add(into: dict[str, int], counts: dict[str, int], times: int) -> None:
    for symbol, count in counts.items():
        into[symbol] = into.get(symbol, 0) + count * times


def _count(number: str, shown: str) -> int:
    if len(number) > 20:
        raise InputError(f"{shown[:40]!r}...: a count of {len(number)} digits is more than a cell may hold")
    value = float(number)
    if value == 0:
        raise InputError(f"{shown!r}: {number} atoms of an element: write a whole number from 1")
    if value != int(value):
        raise _fractional(number, shown)
    if number.startswith("0"):
        raise InputError(f"{shown!r}: a count begins with 0 in {number}: is the letter O meant?")
    if value > MAX_ATOMS:
        raise InputError(f"{shown!r}: {number} atoms are more than a cell may hold ({MAX_ATOMS})")
    return int(value)


def _element(symbol: str, shown: str) -> str:
    if symbol in elements.symbols():
        return symbol
    if symbol in ("D", "T"):
        name = "deuterium" if symbol == "D" else "tritium"
        raise InputError(f"{shown!r}: {symbol} ({name}) is an isotope, texts know elements only: write H")
    if symbol in elements.SYMBOLS_BY_NUMBER:
        elements.get(symbol)  # raises: it has no token
    hint = _hint(_respelled(shown))
    if not hint:
        near = difflib.get_close_matches(symbol, elements.symbols(), n=4, cutoff=0.45)
        hint = _hint(near) or ": write symbols of the periodic table"
    raise InputError(f"{shown!r}: {symbol} is no element{hint}")


def _fractional(number: str, shown: str) -> InputError:
    """An alloy, a partly filled site, or a hydrate with a dot that reads as a decimal point."""
    whole = _multiplied(shown)
    mend = f"did you mean {whole}" if whole else "multiply the formula up (Li0.5CoO2 is LiCo2O4)"
    mend += ", or write '·' between the parts of a hydrate"
    return InputError(f"{shown!r}: {number} is no whole number of atoms: {mend}")


def _multiplied(shown: str) -> str | None:
    """A formula with fractions in whole numbers, `Ti0.5Zr0.5O2` -> TiZrO4; None where many atoms come out."""
    pieces = re.findall(r"([A-Z][a-z]?)(\d+/\d+|\d*\.?\d*)", _plain(shown))
    if "".join(symbol + count for symbol, count in pieces) != _plain(shown):
        return None
    counts: dict[str, Fraction] = {}
    for symbol, count in pieces:
        try:
            counts[symbol] = counts.get(symbol, Fraction()) + Fraction(count or 1)
        except (ValueError, ZeroDivisionError):
            return None
    factor = math.lcm(*(count.denominator for count in counts.values()))
    if counts.keys() - set(elements.symbols()) or not all(counts.values()):
        return None
    if factor * sum(counts.values()) > _MOST_MULTIPLIED:
        return None
    return _written((symbol, int(factor * count)) for symbol, count in counts.items())


def _unreadable(rest: str, shown: str) -> InputError:
    if rest[:1] in ("+", "-", "−", "^"):
        return InputError(
            f"{shown!r}: charges and ranges ({rest[:5]!r}) are not read: write the neutral cell in whole "
            "numbers, such as Fe2O3"
        )
    if rest.startswith("/") and (fraction := re.search(r"\d+/\d+", shown)):
        return _fractional(fraction[0], shown)
    hint = _hint(_respelled(shown)) if rest[:1].isalpha() else ": write one such as TiO2 or (NH4)2SO4"
    return InputError(
        f"{shown!r} is no formula at {rest[:10]!r}{hint or ': symbols begin with a capital letter'}"
    )


def _hint(names: list[str]) -> str:
    return f": did you mean {' or '.join(names)}?" if names else ""


def _respelled(shown: str) -> list[str]:
    """Formulas with the same letters in another case, fewest symbols first: `caco3` -> CaCo3, CaCO3."""
    pieces = re.findall(r"[A-Za-z]+|[^A-Za-z]+", shown)
    if sum(map(len, pieces)) > 40 or not shown.isascii():
        return []
    ways = [""]
    for piece in pieces:
        options = _spellings(piece.lower()) if piece.isalpha() else [piece]
        ways = [way + option for way in ways for option in options][:50]
    ways.sort(key=lambda way: sum(character.isupper() for character in way))
    return ways[:3]


def _spellings(letters: str) -> list[str]:
    """All ways to read lower-case letters as symbols, at most 50."""
    table = set(elements.symbols())
    found: list[list[str]] = [[""]]
    for end in range(1, len(letters) + 1):
        ways = []
        for size in (2, 1):
            symbol = letters[max(end - size, 0) : end].capitalize()
            if end >= size and symbol in table:
                ways += [way + symbol for way in found[end - size]]
        found.append(ways[:50])
    return found[-1]


def _written(composition: Iterable[tuple[str, int]]) -> str:
    """The one way in which formulas are shown, in this order."""
    return _told_apart("".join(f"{symbol}{count if count > 1 else ''}" for symbol, count in composition))


def _told_apart(shown: str) -> str:
    """The same with iodine before a single carbon, as CI reads as chlorine."""
    return re.sub(r"C(I\d*)(?![a-z])", r"\1C", shown)


def _checked(made: Cell, formula: str) -> Cell:
    if made.n_atoms > MAX_ATOMS:
        raise InputError(
            f"{formula.strip()!r} with {made.z} formula units is a cell of {made.n_atoms} atoms: "
            f"at most {MAX_ATOMS}"
        )
    return made
