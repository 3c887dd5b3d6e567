"""Parse the text of an entry, in any of its formats, to a structure.

Only numbers, names of elements and shares of sites are read; classes that a text names, and further
properties of sites (charges, moments, velocities), are ignored. Partial occupancies stay. What a library
warns of while it reads, and what had to be decided, are notes.
"""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

from crystallm.cif import structure_reader
from crystallm.cif.structure_reader import Reading
from crystallm.crystallography.cells import right_handed
from crystallm.crystallography.elements import SYMBOLS_BY_NUMBER
from crystallm.errors import CrystallmError, InputError, TextError, one_line, quiet_libraries
from crystallm.sources import building, extxyz, poscar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pymatgen.core import Structure


def structure(text: str, format: str = "cif") -> Structure:  # noqa: A002 - as in Entry
    """Return the structure of an entry; see `read`."""
    return read(text, format).structure


def read(text: str, format: str = "cif") -> Reading:  # noqa: A002 - as in Entry
    """Return the structure of an entry, and notes on how it was read.

    Args:
        text: of the entry.
        format: of the entry.

    Raises:
        InputError: no such format.
        TextError: the text is no crystal; says why in one line.
    """
    parse = _PARSERS.get(format)
    if parse is None:
        raise InputError(f"format = {format!r}: give one of {', '.join(_PARSERS)}")
    try:
        with warnings.catch_warnings(record=True) as doubts:
            warnings.simplefilter("always", UserWarning)
            found = parse(text)
    except CrystallmError as error:
        if "\n" in str(error):
            raise TextError(one_line(error, 160)) from None
        raise
    except RecursionError:
        raise TextError("it is nested too deep") from None
    except Exception as error:  # noqa: BLE001 - parsers raise anything on bad text; the reason is kept
        raise TextError(f"no crystal can be read: {one_line(error, 160)}") from None
    notes = [*found.notes, *(one_line(x.message) for x in doubts if issubclass(x.category, UserWarning))]
    return Reading(found.structure, tuple(dict.fromkeys(notes)))


def to_cif(found: Structure, *, symprec: float | None = None, digits: int = 8) -> str:
    """Return a structure as a CIF.

    Args:
        found: on a left-handed basis too.
        symprec: tolerance of the symmetry, Å; None for all atoms in P1.
        digits: decimals of its numbers.
    """
    from pymatgen.core import Structure
    from pymatgen.io.cif import CifWriter

    matrix, points = right_handed(found.lattice.matrix, found.frac_coords)
    if matrix is not found.lattice.matrix:
        found = Structure(matrix, found.species_and_occu, points)
    with quiet_libraries():  # of elements without an electronegativity, by which they are sorted
        return str(CifWriter(found, symprec=symprec, significant_figures=digits))


def _poscar(text: str) -> Reading:
    found, notes = poscar.read(text)
    return Reading(found, tuple(notes))


def _pymatgen(text: str) -> Reading:
    record = _object(text)
    lattice, sites = record.get("lattice"), record.get("sites")
    if not isinstance(lattice, dict) or not isinstance(sites, list):
        raise TextError("it has no lattice or no sites")
    building.periodic(lattice.get("pbc", True))
    matrix = lattice.get("matrix")
    cell = building.cell(matrix) if matrix else building.cell_of_parameters(lattice)
    fractions = all(isinstance(site, dict) and site.get("abc") is not None for site in sites)
    species, positions = [], []
    for site in sites:
        parts = ((part["element"], part.get("occu", 1)) for part in site.get("species") or ())
        species.append(building.shares(parts))
        positions.append(site["abc"] if fractions else site["xyz"])
    return Reading(building.build(cell, species, positions, cartesian=not fractions))


_FEATURES = {
    "assemblies": "alternatives of sites (assemblies)",
    "disorder": "",  # the species show it
    "implicit_atoms": "atoms that are not listed",
    "site_attachments": "atoms attached to sites",
    "unknown_positions": "positions that are not known",
}


def _optimade(text: str) -> Reading:
    record = _object(text)
    if (axes := record.get("dimension_types")) is not None:
        building.periodic(axes)
    if record.get("nperiodic_dimensions") not in (None, 3):
        raise TextError("it is not periodic in three directions")
    if record.get("assemblies"):
        raise TextError(f"it has {_FEATURES['assemblies']}: it is disordered")
    for feature in record.get("structure_features") or ():
        if _FEATURES.get(feature):
            raise TextError(f"it has {_FEATURES[feature]}")
    kinds = {}
    for kind in record.get("species") or ():
        symbols, shares = kind["chemical_symbols"], kind.get("concentration") or [1.0]
        if kind.get("attached"):
            raise TextError(
                f"the species {str(kind['name'])[:20]!r} has atoms attached, whose position is not given"
            )
        kinds[kind["name"]] = building.shares(zip(symbols, shares, strict=True))
    names = record.get("species_at_sites")
    if not isinstance(names, list):
        raise TextError("it has no species_at_sites")
    if kinds and (strange := next((name for name in names if name not in kinds), None)) is not None:
        raise TextError(f"the species {str(strange)[:20]!r} of a site is not in its list of species")
    species = [kinds[name] if kinds else building.shares([(name, 1)]) for name in names]
    cell = building.cell(record.get("lattice_vectors"))
    return Reading(building.build(cell, species, record["cartesian_site_positions"], cartesian=True))


def _ase(text: str) -> Reading:
    record = _object(text)
    building.periodic(record.get("pbc", True))
    if not isinstance(record.get("numbers"), list):
        raise TextError("it has no numbers")
    for number in record["numbers"]:
        if (
            isinstance(number, bool)
            or not isinstance(number, int)
            or not 1 <= number <= len(SYMBOLS_BY_NUMBER)
        ):
            raise TextError(f"{str(number)[:20]} is not the number of an element")
    species = [{SYMBOLS_BY_NUMBER[number - 1]: 1.0} for number in record["numbers"]]
    cell = building.cell(record.get("cell"))
    return Reading(building.build(cell, species, record.get("positions") or [], cartesian=True))


_PARSERS: dict[str, Callable[[str], Reading]] = {
    "cif": structure_reader.read,
    "poscar": _poscar,
    "pymatgen": _pymatgen,
    "optimade": _optimade,
    "extxyz": lambda text: Reading(extxyz.read(text)),
    "ase": _ase,
}
"""The reader of each format of an entry."""


def _object(text: str) -> Mapping[str, Any]:
    record = json.loads(text)
    if not isinstance(record, dict):
        raise TextError("it is no JSON object")
    return record
