"""Any CIF -> structure: read as it is meant, or rejected with the reason.

Symmetry comes from the operators, else the Hall symbol, the H-M symbol, the number (`symmetry_items`);
elements from types, else labels (`element_names`); rounded special positions become exact
(`special_positions`). Nothing is guessed: a cell that does not fit its group, operators that are not a group,
a coordinate that is missing, an element that is not named, and a printed formula that contradicts the atoms
are errors. What had to be decided is a note.

A standard text of the published language is read by its own strict parser (`standard_structure`).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from math import gcd, isclose
from typing import TYPE_CHECKING

import numpy as np

from crystallm.cif import items, symmetry_items
from crystallm.cif.block import CELL
from crystallm.cif.items import Items, number
from crystallm.cif.site_rows import FULL, SITE, Site, read_sites
from crystallm.crystallography import cells, element_names, elements
from crystallm.crystallography import formula as formulas
from crystallm.errors import InputError, TextError
from crystallm.geometry import special_positions, symmetry_search

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pymatgen.core import Structure

    from crystallm.cif.symmetry_items import Setting
    from crystallm.crystallography.space_groups import Floats

MAX_IMAGES = 20_000
"""Most rows times operators."""
SHARED = 0.1
"""Distance up to which two rows are at one place, Å."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A structure, and what had to be decided to read it.

    Attributes:
        structure: of one cell, atoms by rising electronegativity.
        notes: one line each.
    """

    structure: Structure
    notes: tuple[str, ...] = ()


def structure(text: str) -> Structure:
    """Read the crystal of a CIF or standard text.

    Raises:
        TextError: it cannot be read for certain; gives the reason.
    """
    return read(text).structure


def read(text: str) -> Reading:
    """Read the crystal of a CIF or standard text, with notes.

    Raises:
        TextError: it cannot be read for certain; gives the reason.
    """
    if is_standard(text):
        from crystallm.cif import standard_structure

        return Reading(standard_structure.to_structure(text))
    return of_items(items.crystal(text))


def is_standard(text: str) -> bool:
    """Return whether a text has the form of the published language, whose identity is for the group."""
    return text.startswith("data_") and "_atom_type_electronegativity" in text


def of_items(block: Items) -> Reading:
    """Read the crystal of a data block.

    Raises:
        TextError: as `read`.
    """
    vectors = _vectors(block)
    settings, notes = symmetry_items.settings(block)
    metric = vectors @ vectors.T
    fitting = [one for one in settings if one.fits(metric)]
    if not fitting:
        raise TextError(f"the cell does not fit its symmetry ({settings[0].name})")
    formula = _printed_formula(block, notes)
    sites = read_sites(block, {} if formula is None else formula, notes)
    n_operators = min(len(one.operators) for one in fitting)
    if len(sites) * n_operators > MAX_IMAGES:
        raise TextError(
            f"{len(sites)} atoms times {n_operators} operators are more than the maximum of {MAX_IMAGES}"
        )
    found = [_expanded(sites, one, vectors) for one in fitting]
    chosen = found[0] if len(found) == 1 else _chosen(found, fitting, block, formula, notes)
    chosen.check_formula(block, formula)
    _check_listed(chosen, block, formula, vectors)
    return Reading(chosen.structure(vectors), tuple(notes + chosen.notes))


# -- the cell ------------------------------------------------------------------------------------------------


def _vectors(block: Items) -> Floats:
    """Return the lattice vectors [3, 3], Å."""
    parameters = []
    for name in CELL:
        column = block.column((name,))
        if column is None:
            raise TextError(f"it has no {name}")
        parameters.append(number(column[0], name)[0])
    vectors = None if cells.impossible(parameters) else cells.pymatgen_vectors(parameters)
    if vectors is None:
        raise TextError(f"no cell has these lengths and angles: {', '.join(f'{x:g}' for x in parameters)}")
    return vectors


# -- expansion -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Expanded:
    """The atoms of the cell in one setting.

    Attributes:
        setting: of the group.
        shares: for each position the occupancy of each element.
        points: for each position all its images, [n, 3] fractions.
        multiplicities: of the rows, before those at one place were merged.
        notes: what was done.
    """

    setting: Setting
    shares: list[dict[str, float]]
    points: list[Floats]
    multiplicities: list[int]
    notes: list[str]

    @property
    def ordered(self) -> bool:
        """Whether each site holds one whole atom."""
        return all(len(share) == 1 and 1.0 in share.values() for share in self.shares)

    def counts(self) -> dict[str, float]:
        """Return the atoms of each element in the cell."""
        counts: Counter[str] = Counter()
        for share, points in zip(self.shares, self.points, strict=True):
            for symbol, occupancy in share.items():
                counts[symbol] += occupancy * len(points)  # type: ignore[assignment]
        return dict(counts)

    def check_formula(self, block: Items, formula: Mapping[str, float] | None) -> None:
        """Compare the atoms with the printed sum formula and Z.

        Raises:
            TextError: they contradict each other.
        """
        if formula is None:
            return
        read, printed = self.counts(), dict(formula)
        if not _proportional(read, printed, exact=self.ordered):
            raise TextError(
                f"the atoms are {_formula(read)}, and the printed sum formula is {_formula(printed)}: "
                "they contradict each other"
            )
        z = _formula_units(block)
        if z is not None and self.ordered and not _is_cell(read, printed, z):
            raise TextError(
                f"the cell holds {_formula(read)}, and the printed sum formula {_formula(printed)} and "
                f"Z = {z:g} contradict that"
            )

    def structure(self, vectors: Floats) -> Structure:
        """Return the structure, atoms by rising electronegativity, then by rows and operators."""
        from pymatgen.core import Composition, Structure

        rank = [_rank(tuple(share.items())) for share in self.shares]
        order = sorted(range(len(rank)), key=rank.__getitem__)
        species: list[Composition] = []
        made: dict[tuple[tuple[str, float], ...], Composition] = {}  # slow to make, and never changed
        for i in order:
            key = tuple(self.shares[i].items())
            species += [made.get(key) or made.setdefault(key, Composition(dict(key)))] * len(self.points[i])
        return Structure(vectors, species, np.vstack([self.points[i] for i in order]))


@lru_cache(maxsize=1024)
def _rank(share: Sequence[tuple[str, float]]) -> tuple[float, str]:
    """Return by what sites are sorted: the mean electronegativity, and the first symbol."""
    total, value = 0.0, 0.0
    for symbol, occupancy in share:
        try:
            negativity = elements.get(symbol).electronegativity
        except InputError:
            negativity = np.nan
        value += occupancy * (negativity if negativity == negativity else 1e9)  # noqa: PLR0124 - NaN
        total += occupancy
    return value / total, min(share)[0]


def _expanded(sites: Sequence[Site], setting: Setting, vectors: Floats) -> _Expanded:
    points, units = np.array([site.point for site in sites]), np.array([site.units for site in sites])
    try:
        orbits = special_positions.orbits(points, units, setting.operators, vectors)
    except TextError as error:
        raise TextError(f"an atom cannot be placed: {error}") from None
    notes = []
    moved = max(orbit.moved for orbit in orbits)
    if moved > special_positions.SAME:
        notes.append(f"atoms are moved up to {moved:.2f} Å onto special positions that their digits allow")
    of_site = np.repeat(np.arange(len(sites)), [len(orbit.points) for orbit in orbits])
    all_points = np.vstack([orbit.points for orbit in orbits])
    first = list(range(len(sites)))  # the first row at the place of each
    for i, j in special_positions.coincident(all_points, vectors, SHARED):
        one, other = sorted((int(of_site[i]), int(of_site[j])))
        if one != other:
            if len(orbits[one].points) != len(orbits[other].points):
                raise TextError(f"{sites[one].label} and {sites[other].label} are on top of each other")
            first[other] = min(first[other], first[one])
    shares: dict[int, dict[str, float]] = {}
    for i, site in enumerate(sites):
        _occupy(shares.setdefault(first[i], {}), site, sites[first[i]], notes)
    multiplicities = [len(orbit.points) for orbit in orbits]
    return _Expanded(
        setting, list(shares.values()), [orbits[i].points for i in shares], multiplicities, notes
    )


def _occupy(share: dict[str, float], site: Site, first: Site, notes: list[str]) -> None:
    """Add an atom to the site of the first one there.

    Raises:
        TextError: the site is taken.
    """
    total = sum(share.values()) + site.occupancy
    if total < 1 + 10 * FULL:
        share[site.symbol] = share.get(site.symbol, 0.0) + site.occupancy
        if abs(share[site.symbol] - 1) < FULL:
            share[site.symbol] = 1.0
    elif share == {site.symbol: 1.0} and site.occupancy == 1:
        notes.append(f"{site.label} is {first.label} again, or an image of it")
    else:
        raise TextError(
            f"{first.label} and {site.label} share one place, which is then occupied {total:g} times"
        )


def _chosen(
    found: Sequence[_Expanded],
    settings: Sequence[Setting],
    block: Items,
    formula: Mapping[str, float] | None,
    notes: list[str],
) -> _Expanded:
    """Return the one of several settings with which the printed formula, Z and multiplicities agree.

    Raises:
        TextError: more than one agrees, and they differ.
    """
    names = " or ".join(one.name for one in settings)
    agreeing = []
    printed = block.column((f"{SITE}symmetry_multiplicity", f"{SITE}site_symmetry_multiplicity"))
    for one in found:
        if printed is not None and [str(n) for n in one.multiplicities] != printed:
            continue
        try:
            one.check_formula(block, formula)
        except TextError:
            continue
        agreeing.append(one)
    if not agreeing:
        raise TextError(f"the symbol may mean {names}, and neither agrees with the printed formula")
    axes = {
        "".join(sorted(set(one.setting.name) & set(":12HR"))) for one in agreeing if ":" in one.setting.name
    }
    if len(agreeing) > 1 and axes:
        raise TextError(
            f"the symbol may mean {' or '.join(one.setting.name for one in agreeing)}: "
            "add the origin or the axes to it"
        )
    if len(settings) > 1:
        notes.append(f"{agreeing[0].setting.name} is taken of {names}")
    return agreeing[0]


def _check_listed(
    found: _Expanded, block: Items, formula: Mapping[str, float] | None, vectors: Floats
) -> None:
    """Check that all atoms are listed where the identity is the only operator and a group is printed.

    They are if their number is that of the formula and Z, or if they have the printed symmetry.

    Raises:
        TextError: the identity and the group contradict each other.
    """
    named = symmetry_items.printed_number(block)
    if not found.setting.listed or len(found.setting.operators) > 1 or named in (None, 1):
        return
    z = _formula_units(block)
    if formula is not None and z is not None and _is_cell(found.counts(), formula, z):
        return
    points = np.vstack(found.points)
    kinds = np.repeat(np.arange(len(found.points)), [len(some) for some in found.points])
    symbols = [tuple(sorted(share.items())) for share in found.shares]
    numbers = [symbols.index(symbols[kind]) + 1 for kind in kinds]
    symmetry = symmetry_search.find_symmetry(vectors, points, numbers)
    if symmetry is None or symmetry.number != named:
        symbol = block.first(symmetry_items.SYMBOL) or f"group {named}"
        raise TextError(
            f"the identity is the only operator, {symbol} is printed, and the atoms as listed do not have "
            "that symmetry: are the operators missing?"
        )


# -- the printed formula -------------------------------------------------------------------------------------

_TERM = re.compile(r"([A-Z][a-z]?)(\d*\.?\d*)")


def _printed_formula(block: Items, notes: list[str]) -> dict[str, float] | None:
    """Return the printed sum formula; None if there is none that can be read, with a note if one is there."""
    text = block.first(("_chemical_formula_sum",))
    if text is None:
        return None
    counts = _counts_of_terms(text)
    if counts is None:
        try:  # with brackets, or of several parts
            return {symbol: float(count) for symbol, count in formulas.parse(text).items()}
        except InputError:
            notes.append(f"the printed sum formula {text[:40]!r} cannot be read, and is not compared")
    return counts


def _counts_of_terms(text: str) -> dict[str, float] | None:
    """Return the counts of a sum formula, such as `Cl2 Fe`; None for another text."""
    if _TERM.sub("", text).strip(" ,"):
        return None
    counts: dict[str, float] = {}
    for symbol, count in _TERM.findall(text):
        try:
            name = element_names.element(symbol)
        except TextError:
            return None
        counts[name] = counts.get(name, 0.0) + float(count if count not in ("", ".") else 1)
    counts = {symbol: count for symbol, count in counts.items() if count > 0}
    return counts or None


def _formula_units(block: Items) -> float | None:
    """Return the printed Z; None if there is none. pymatgen prints 0 for half of O2 or Na2O2 in a cell."""
    text = block.first(("_cell_formula_units_z", "_cell_formula_units_z_"))
    try:
        return None if text is None else number(text, "Z")[0] or None
    except TextError:
        return None


def _proportional(one: Mapping[str, float], other: Mapping[str, float], *, exact: bool) -> bool:
    """Return whether two compositions have the same reduced formula, up to 1 % where counts are not whole."""
    if one.keys() != other.keys():
        return False
    ratios = [one[symbol] / other[symbol] for symbol in one]
    whole = exact and all(float(count).is_integer() for count in other.values())
    return all(isclose(ratio, ratios[0], rel_tol=1e-9 if whole else 0.01) for ratio in ratios)


def _is_cell(counts: Mapping[str, float], formula: Mapping[str, float], z: float) -> bool:
    """Return whether a cell holds Z printed formulas, or one, of Z units, as pymatgen writes it."""
    ratio = next(iter(counts.values())) / formula.get(next(iter(counts)), np.nan)
    if isclose(ratio, z, rel_tol=0.01):
        return True
    if not isclose(ratio, 1, rel_tol=0.01):
        return False
    units = gcd(*(round(count) for count in formula.values()))
    return z in (units, units // 2)  # of Cl2, O2 and the like pymatgen counts whole molecules


def _formula(counts: Mapping[str, float]) -> str:
    """Return a formula for a message, elements by their names."""
    return "".join(
        f"{symbol}{'' if count == 1 else f'{count:.4g}'}" for symbol, count in sorted(counts.items())
    )
