"""Chemical formulas and systems: parse them, and compute what the unit cell holds.

    parse("(NH4)2SO4")     {"N": 2, "H": 8, "S": 1, "O": 4}
    cell("TiO2", z=2)      2 x TiO2 = Ti2O4
    cell("Ti2O4")          the cell as given: Ti2O4 = 2 x TiO2
    cell("CaSO4·0.5H2O")   in whole numbers: Ca2S2O9H2
    system("O-Ti")         ("Ti", "O")

Reads brackets, hydrates, subscripts and blanks, but no charges, isotopes, fractions of atoms or names. The
cell is the conventional one of the space group.
"""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache

from crystallm.crystallography import elements, formula_spelling
from crystallm.errors import InputError

MAX_ATOMS = 2000
"""Most atoms in one cell. The conventional cells of the training data hold far fewer."""

MOLECULES = (
    "Hg2F2 Hg2Cl2 Hg2Br2 Hg2I2 H2O2 N2H4 N2O2 N2O4 N2F4 P2H4 P2I4 P4O6 P4O10 P4S10 As4O6 As4S4 S2F2 S2F10 "
    "S2Cl2 S2Br2 S4N4 Se4N4 B2H6 B2F4 B2Cl4 Si2H6 Si2F6 Si2Cl6 Al2Cl6 Al2Br6 Al2I6 Ga2Cl6 Au2Cl6 C2H2 C2H4 "
    "C2H6 C4H8 C4H10 C6H6 C6H12 C8H8 C10H8 C2F4 C2F6 C2Cl4 C2Cl6 C6Cl6 C6F6 C2N2 C2H4O2 C2H2O4 C4H4O4 "
    "C6H12O6 C6H6O6 Li2C2O4 Na2C2O4 K2C2O4 Na2S2O4 Na2S2O8 K2S2O8"
).split()
"""Formulas that chemists do not reduce: calomel is Hg2Cl2, glucose C6H12O6."""

_MAX_LENGTH = 500
_MAX_DENOMINATOR = 12  # of a fraction of a part, as in CdSO4·8/3H2O
_MAX_MULTIPLIED = 100  # atoms of the formula in whole numbers that is suggested for one with fractions
_OPEN = {"(": ")", "[": "]", "{": "}"}
_TOKEN = re.compile(r"\s*(?:(?P<symbol>[A-Z][a-z]?)|(?P<count>\d+/\d+|\d+(?:\.\d+)?)|(?P<mark>[()\[\]{}·]))")


@dataclass(frozen=True, slots=True)
class Cell:
    """The content of a conventional cell.

    Attributes:
        composition: (symbol, count) by rising electronegativity, counts of the whole cell.
        reduced_formula: one formula unit, `TiO2`.
        z: formula units in the cell.
        note: how the formula was read, in one line.
    """

    composition: tuple[tuple[str, int], ...]
    reduced_formula: str
    z: int
    note: str

    @property
    def formula(self) -> str:
        """The formula of the cell, `Ti2O4`."""
        return _format(self.composition)

    @property
    def n_atoms(self) -> int:
        """Number of atoms in the cell."""
        return sum(count for _, count in self.composition)


def cell(formula: str, z: int | None = None) -> Cell:
    """Return the cell of a formula.

    With `z` the cell holds z formula units, where a formula unit is the reduced formula, however the formula
    is given: `TiO2` and `Ti2O4` with z = 2 are both Ti2O4, as Z counts in a CIF. Without `z` the formula is
    the cell as given. Diatomic elements and peroxides stay whole: z = 2 of `O2` is O4, of `Na2O2` Na4O4.

    Raises:
        InputError: not a formula, z is not a positive integer, or more than MAX_ATOMS atoms.
    """
    unit, factor = _unit(formula)
    reduced = _format(unit)
    content = tuple((symbol, count * factor) for symbol, count in unit)
    given = _format(content)
    if z is None:
        times = _parts(formula)[1]
        how = "as written" if times == 1 else f"of {times} {formula.strip()}, in whole numbers"
        note = f"cell {how}: {given}" + (f" = {factor} x {reduced}" if factor > 1 else "")
        return _checked(Cell(content, reduced, factor, note), formula)
    if isinstance(z, bool) or not isinstance(z, int) or z < 1:
        raise InputError(f"z = {z!r} formula units: write a whole number from 1, such as z = 4")
    composition = tuple((symbol, count * z) for symbol, count in unit)
    note = f"z = {z}: cell {_format(composition)}" + (f" = {z} x {reduced}" if z > 1 else "")
    if factor > 1:
        note += f" (the formula unit of {given} is {reduced})"
    elif (times := _parts(formula)[1]) > 1:
        note += f" (the formula unit is {times} {formula.strip()}, in whole numbers)"
    return _checked(Cell(composition, reduced, z, note), formula)


def molecule_units(formula: str) -> int:
    """Return how many reduced formula units one of MOLECULES has, `Hg2Cl2`: 2; 1 for any other formula.

    Raises:
        InputError: not a formula.
    """
    unit, factor = _unit(formula)
    return _molecules().get(frozenset((symbol, count * factor) for symbol, count in unit), 1)


@cache
def _molecules() -> dict[frozenset[tuple[str, int]], int]:
    """Return the reduced formula units of each of MOLECULES, by its composition."""
    return {frozenset(parse(name).items()): _unit(name)[1] for name in MOLECULES}


def system(text: str) -> tuple[str, ...]:
    """Return the elements of a chemical system, by rising electronegativity.

    Reads `Li-Fe-O`, `Li,Fe,O`, `Li Fe O`, `LiFeO`.

    Raises:
        InputError: not an element, an element without a token, or counts, which only a formula has.
    """
    shown = text.strip()[:60]
    if len(text) > _MAX_LENGTH or not shown:
        raise InputError(f"elements = {shown!r}: write symbols with - between them, such as Li-Fe-O")
    plain = unicodedata.normalize("NFKC", text).strip()
    if re.search(r"[\d.*()\[\]]", plain):
        raise InputError(
            f"elements = {shown!r} has counts or brackets: write symbols alone, such as Li-Fe-O, "
            "or give a formula"
        )
    members: list[str] = []
    for piece in re.split(r"[-\u2010-\u2015\u2212,;/+\s]+", plain):
        symbols = re.findall(r"[A-Z][a-z]?", piece)
        if "".join(symbols) != piece:
            raise InputError(
                f"elements = {shown!r}: {piece[:20]!r} is not an element"
                f"{_hint(_respelled(piece)[:1]) or ': write symbols of the periodic table, such as Li-Fe-O'}"
            )
        members += [_element(symbol, shown) for symbol in symbols]
    if not members:
        raise InputError(f"elements = {shown!r}: write symbols with - between them, such as Li-Fe-O")
    return tuple(elements.electronegativity_order(dict.fromkeys(members)))


@lru_cache(maxsize=256)
def _unit(formula: str) -> tuple[tuple[tuple[str, int], ...], int]:
    """Return the formula unit, (symbol, count) by rising electronegativity, and the number of units given."""
    counts = parse(formula)
    order = elements.electronegativity_order(counts)
    factor = math.gcd(*counts.values())
    if tuple(order) in elements.DOUBLED and len(set(counts.values())) == 1 and factor % 2 == 0:
        factor //= 2
    return tuple((symbol, counts[symbol] // factor) for symbol in order), factor


def parse(text: str) -> dict[str, int]:
    """Return the atoms of each element in a formula, in the order of the formula.

    Reads `TiO2`, `Ti2 O4`, `TiO₂`, `TiO_2`, `(NH4)2SO4`, `[Cu(NH3)4]SO4`, `CaSO4·2H2O`, `CaSO4.2H2O`,
    `2TiO2`. A fraction of a part, as in `CaSO4·½H2O`, gives the smallest formula in whole numbers.

    Raises:
        InputError: names the part that cannot be read and suggests similar formulas.
    """
    return dict(_parts(text)[0])


@lru_cache(maxsize=256)
def _parts(text: str) -> tuple[tuple[tuple[str, int], ...], int]:
    """Return the atoms of each element in a formula, and how many of it these are, in whole numbers."""
    if len(text) > _MAX_LENGTH:
        raise InputError(
            f"a formula of {len(text)} characters, {text[:20]!r}...: at most {_MAX_LENGTH} are read"
        )
    shown = text.strip()
    formula_spelling.check_superscripts(shown)
    plain = formula_spelling.plain(text)
    if not plain:
        raise InputError("the formula is empty: write one, such as TiO2")
    # A stack of open groups; at its bottom the part between two dots, multiplied by its leading number.
    total: dict[str, Fraction] = {}
    stack: list[tuple[str, dict[str, int]]] = [("", {})]
    multiplier: Fraction | None = None
    last: dict[str, int] | None = None  # multiplied by a count that comes next
    counted = False
    position = 0
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
                if re.match(r"\s*[-+−^]", plain[position:]):  # SO4 2-
                    raise _unreadable(plain[position:].lstrip(), shown)
                raise InputError(
                    f"{shown!r}: two numbers in a row: write '·' between parts, as in CaSO4·2H2O"
                )
            counted = True
            if last is not None:
                _add(stack[-1][1], last, _count(number, shown) - 1)
            elif len(stack) == 1 and multiplier is None and not stack[0][1]:
                multiplier = _multiplier(number, shown)
            else:
                raise InputError(f"{shown!r}: the number {number} does not follow an element or a bracket")
            last = None
        elif (mark := match["mark"]) == "·":
            _add_part(total, _closed(stack, shown), multiplier)
            stack, multiplier, last, counted = [("", {})], None, None, False
        elif mark in _OPEN:
            stack.append((mark, {}))
            last, counted = None, False
        else:
            opened, group = stack.pop() if len(stack) > 1 else ("", {})
            if not opened or _OPEN[opened] != mark:
                raise InputError(f"{shown!r}: the bracket {mark!r} was not opened: write (NH4)2SO4")
            if not group:
                raise InputError(f"{shown!r}: an empty bracket: write (NH4)2SO4")
            _add(stack[-1][1], group, 1)
            last, counted = group, False
    _add_part(total, _closed(stack, shown), multiplier)
    times = math.lcm(*(count.denominator for count in total.values()))
    return tuple((symbol, int(count * times)) for symbol, count in total.items()), times


def _add_part(into: dict[str, Fraction], counts: dict[str, int], times: Fraction | None) -> None:
    for symbol, count in counts.items():
        into[symbol] = into.get(symbol, Fraction()) + count * (1 if times is None else times)


def _multiplier(number: str, shown: str) -> Fraction:
    """Return the number in front of a part, which may be a fraction."""
    if len(number) <= 20 and ("/" in number or "." in number):
        try:
            value = Fraction(number)
        except ZeroDivisionError:
            value = Fraction()
        if value > 0 and value.denominator <= _MAX_DENOMINATOR and value <= MAX_ATOMS:
            return value
        raise InputError(f"{shown!r}: {number} of a part: write a fraction such as 1/2 or 0.5")
    return Fraction(_count(number, shown))


def _closed(stack: list[tuple[str, dict[str, int]]], shown: str) -> dict[str, int]:
    """Return the atoms of a part, of which no bracket may be open."""
    if len(stack) > 1:
        raise InputError(f"{shown!r}: a bracket is not closed: {_OPEN[stack[-1][0]]!r} is missing")
    if not stack[0][1]:
        raise InputError(f"{shown!r}: a part without an element: write one, such as TiO2 or CaSO4·2H2O")
    return stack[0][1]


def short(counts: Mapping[str, float]) -> str:
    """Return a formula as it is printed, elements in the order of their counts: `CaTiO3`."""
    pieces = (f"{symbol}{'' if n == 1 else f'{n:g}'}" for symbol, n in counts.items() if n)
    return _separate_iodine("".join(pieces))


def of_atoms(counts: Mapping[str, float]) -> str:
    """Return a formula as it is printed, elements of any kind by rising electronegativity."""
    return short({symbol: counts[symbol] for symbol in sorted(counts, key=elements.rank)})


def _add(into: dict[str, int], counts: dict[str, int], times: int) -> None:
    for symbol, count in counts.items():
        into[symbol] = into.get(symbol, 0) + count * times


def _count(number: str, shown: str) -> int:
    if len(number) > 20:
        raise InputError(f"{shown[:40]!r}...: a count of {len(number)} digits is more than a cell may hold")
    if "/" in number:
        raise _fractional(number, shown)
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
        raise InputError(
            f"{shown!r}: {symbol} ({name}) is an isotope, and only elements have tokens: write H"
        )
    if symbol in elements.SYMBOLS_BY_NUMBER:
        elements.get(symbol)  # raises: it has no token
    hint = _hint(_respelled(shown))
    if not hint:
        near = difflib.get_close_matches(symbol, elements.symbols(), n=4, cutoff=0.45)
        hint = _hint(near) or ": write symbols of the periodic table"
    raise InputError(f"{shown!r}: {symbol} is not an element{hint}")


def _fractional(number: str, shown: str) -> InputError:
    """Return the error for an alloy, a disordered site, or a hydrate whose dot reads as a decimal point."""
    whole = _multiplied(shown)
    remedy = f"did you mean {whole}" if whole else "multiply the formula up (Li0.5CoO2 is LiCo2O4)"
    remedy += ", or write '·' between the parts of a hydrate"
    return InputError(f"{shown!r}: {number} is not a whole number of atoms: {remedy}")


def _multiplied(shown: str) -> str | None:
    """Return a formula with fractions in whole numbers, `Ti0.5Zr0.5O2` -> TiZrO4; None above 100 atoms."""
    pieces = re.findall(r"([A-Z][a-z]?)(\d+/\d+|\d*\.?\d*)", formula_spelling.plain(shown))
    if "".join(symbol + count for symbol, count in pieces) != formula_spelling.plain(shown):
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
    if factor * sum(counts.values()) > _MAX_MULTIPLIED:
        return None
    return _format((symbol, int(factor * count)) for symbol, count in counts.items())


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
        f"{shown!r} is not a formula at {rest[:10]!r}{hint or ': symbols begin with a capital letter'}"
    )


def _hint(names: list[str]) -> str:
    return f": did you mean {' or '.join(names)}?" if names else ""


def _respelled(shown: str) -> list[str]:
    """Return formulas of the same letters in another case, fewest symbols first: `caco3` -> CaCo3, CaCO3."""
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
    """Return the ways to read lower-case letters as symbols, at most 50."""
    table = set(elements.symbols())
    spellings: list[list[str]] = [[""]]
    for end in range(1, len(letters) + 1):
        ways = []
        for size in (2, 1):
            symbol = letters[max(end - size, 0) : end].capitalize()
            if end >= size and symbol in table:
                ways += [way + symbol for way in spellings[end - size]]
        spellings.append(ways[:50])
    return spellings[-1]


def _format(composition: Iterable[tuple[str, int]]) -> str:
    """Return a formula as it is printed, in this order of elements."""
    return _separate_iodine("".join(f"{symbol}{count if count > 1 else ''}" for symbol, count in composition))


def _separate_iodine(shown: str) -> str:
    """Return a formula with iodine before a single carbon, because CI reads as chlorine."""
    return re.sub(r"C(I\d*)(?![a-z])", r"\1C", shown)


def _checked(made: Cell, formula: str) -> Cell:
    if made.n_atoms > MAX_ATOMS:
        raise InputError(
            f"{formula.strip()!r} with {made.z} formula units is a cell of {made.n_atoms} atoms: "
            f"at most {MAX_ATOMS}"
        )
    return made
