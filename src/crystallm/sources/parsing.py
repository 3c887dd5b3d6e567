"""Parse the text of an entry, in any of its formats, to a structure.

Only numbers, names of elements and shares of sites are read; classes that a text names, and further
properties of sites (charges, moments, velocities), are ignored. Partial occupancies stay.
"""

from __future__ import annotations

import io
import json
import math
import re
import warnings
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError, InputError, TextError, install, one_line, quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pymatgen.core import Structure

MAX_ATOMS = 20_000
"""Maximum number of atoms in a cell."""
MIN_VOLUME = 1e-3
"""Minimum volume of a cell, Å^3."""
_OF_FRAME = re.compile(
    r"""(?<!\S)(lattice|properties|pbc)\s*=\s*("[^"]*"|'[^']*'|\{[^}]*\}|\[[^\]]*\]|[^\s"'{[]\S*)""",
    re.IGNORECASE,
)
_COLUMNS = re.compile(r"\w{1,50}:[SRIL]:\d{1,2}(:\w{1,50}:[SRIL]:\d{1,2}){0,50}")
_PERIODIC = '"T T T"'


def structure(text: str, format: str = "cif") -> Structure:  # noqa: A002 - as in Entry
    """Return the structure of an entry.

    Args:
        text: of the entry.
        format: of the entry.

    Raises:
        InputError: no such format, or a library is missing that reads it.
        TextError: the text is no crystal; says why in one line.
    """
    parse = _PARSERS.get(format)
    if parse is None:
        raise InputError(f"format = {format!r}: give one of {', '.join(_PARSERS)}")
    try:
        with quiet_libraries():
            found = parse(text)
    except CrystallmError as error:
        if "\n" in str(error):
            raise TextError(one_line(error, 160)) from None
        raise
    except RecursionError:
        raise TextError("it is nested too deep") from None
    except Exception as error:  # noqa: BLE001 - parsers raise anything on bad text; the reason is kept
        raise TextError(f"no crystal can be read: {one_line(error, 160)}") from None
    return found


def to_cif(text: str, format: str) -> str:  # noqa: A002 - as in Entry
    """Return the structure of an entry as a CIF with all atoms, in P1.

    Raises:
        InputError, TextError: as `structure`.
    """
    found = structure(text, format)
    from pymatgen.io.cif import CifWriter

    with quiet_libraries():
        return str(CifWriter(found))


def _cif(text: str) -> Structure:
    from crystallm.cif import structure_reader

    return _bare(structure_reader.structure(text))


def _poscar(text: str) -> Structure:
    from pymatgen.io.vasp.inputs import BadPoscarWarning, Poscar

    lines = text.splitlines()
    # Counts make lists of atoms before a line of these is read.
    counts = [
        int(word) for line in lines[5:26] for word in line.split() if word.isdecimal() and len(word) < 19
    ]
    if any(count > len(lines) for count in counts):
        raise TextError("it has fewer lines than atoms")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Elements in POSCAR cannot", BadPoscarWarning)
        try:
            found = Poscar.from_str(text, read_velocities=False).structure
        except BadPoscarWarning as error:
            unnamed = str(error).startswith("Elements")
            raise TextError("its elements are not named" if unnamed else one_line(error, 160)) from None
    return _bare(found)


def _pymatgen(text: str) -> Structure:
    record = _object(text)
    lattice, sites = record.get("lattice"), record.get("sites")
    if not isinstance(lattice, dict) or not isinstance(sites, list):
        raise TextError("it has no lattice or no sites")
    cell = _cell(lattice.get("matrix")) if lattice.get("matrix") else _cell_of_parameters(lattice)
    fractions = all(isinstance(site, dict) and site.get("abc") is not None for site in sites)
    species, positions = [], []
    for site in sites:
        species.append(_shares((part["element"], part.get("occu", 1)) for part in site.get("species") or ()))
        positions.append(site["abc"] if fractions else site["xyz"])
    return _build(cell, species, positions, cartesian=not fractions)


def _optimade(text: str) -> Structure:
    record = _object(text)
    periodic = record.get("dimension_types")
    if periodic is not None and list(periodic) != [1, 1, 1]:
        raise TextError("it is not periodic in three directions")
    kinds = {}
    for kind in record.get("species") or ():
        symbols, shares = kind["chemical_symbols"], kind.get("concentration") or [1.0]
        if kind.get("attached"):
            raise TextError(
                f"the species {str(kind['name'])[:20]!r} has atoms attached, whose place is not told"
            )
        kinds[kind["name"]] = _shares(zip(symbols, shares, strict=True))
    names = record.get("species_at_sites")
    if not isinstance(names, list):
        raise TextError("it has no species_at_sites")
    species = [kinds[name] if name in kinds else _shares([(name, 1)]) for name in names]
    return _build(
        _cell(record.get("lattice_vectors")), species, record["cartesian_site_positions"], cartesian=True
    )


def _ase(text: str) -> Structure:
    from pymatgen.core import Element

    record = _object(text)
    periodic = record.get("pbc", True)
    if not (periodic is True or (isinstance(periodic, list) and len(periodic) == 3 and all(periodic))):
        raise TextError("it is not periodic in three directions")
    if not isinstance(record.get("numbers"), list):
        raise TextError("it has no numbers")
    for number in record["numbers"]:
        if not isinstance(number, int) or not 1 <= number <= 118:
            raise TextError(f"{str(number)[:20]} is not the number of an element")
    species = [{Element.from_Z(number).symbol: 1.0} for number in record["numbers"]]
    return _build(_cell(record.get("cell")), species, record.get("positions") or [], cartesian=True)


def _extxyz(text: str) -> Structure:
    try:
        from ase.io import read
    except ImportError:
        raise InputError(f"extended XYZ is read by ASE: {install('ase')}") from None
    n_atoms, comment, rows = (*text.split("\n", 2), "", "")[:3]
    # ASE takes whatever a comment says at its word: `pos:R:30550000` keeps it busy for minutes.
    told = {name.lower(): value for name, value in _OF_FRAME.findall(comment) if len(value) < 2000}
    if "lattice" not in told:
        raise TextError("no cell: its second line has no Lattice=")
    columns = told.get("properties", "species:S:1:pos:R:3").strip("\"'")
    if not _COLUMNS.fullmatch(columns):
        raise TextError(f"{columns[:40]!r} tells no columns of atoms")
    comment = f"Lattice={told['lattice']} Properties={columns} pbc={told.get('pbc', _PERIODIC)}"
    atoms: Any = read(io.StringIO(f"{n_atoms}\n{comment}\n{rows}"), format="extxyz")
    content = {
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
        "pbc": atoms.pbc.tolist(),
    }
    return _ase(json.dumps(content))


_PARSERS: dict[str, Callable[[str], Structure]] = {
    "cif": _cif,
    "poscar": _poscar,
    "pymatgen": _pymatgen,
    "optimade": _optimade,
    "extxyz": _extxyz,
    "ase": _ase,
}
"""The reader of each format of an entry."""


def _object(text: str) -> Mapping[str, Any]:
    record = json.loads(text)
    if not isinstance(record, dict):
        raise TextError("it is no JSON object")
    return record


def _shares(parts: Any) -> dict[str, float]:
    """Return elements of a site and their shares, without charges: `Fe3+` is Fe."""
    from pymatgen.core import Element

    from crystallm.cif.block import symbol_of

    shares: dict[str, float] = {}
    for name, share in parts:
        if name in ("X", "vacancy"):
            raise TextError(f"a site holds {name!r}: a vacancy, or an atom that is not known")
        symbol = "D" if str(name) == "D" else symbol_of(str(name))
        value = float(share)
        if not 0 < value <= 1.001:
            raise TextError(f"{value:g} is no share of a site")
        shares[Element(symbol).symbol] = shares.get(symbol, 0.0) + value
    if not shares:
        raise TextError("a site holds no element")
    return shares


def _cell(vectors: Any) -> list[list[float]]:
    """Return the vectors of a cell, Å, (3, 3).

    Raises:
        TextError: they are none, or without volume.
    """
    if vectors is None or any(x is None for vector in vectors if vector is not None for x in vector):
        raise TextError("no cell: it is not periodic in three directions")
    a, b, c = ([float(x) for x in vector] for vector in vectors)
    if not all(len(vector) == 3 and all(map(math.isfinite, vector)) for vector in (a, b, c)):
        raise TextError("no cell: its vectors are not three of three numbers")
    volume = (
        a[0] * (b[1] * c[2] - b[2] * c[1])
        - a[1] * (b[0] * c[2] - b[2] * c[0])
        + a[2] * (b[0] * c[1] - b[1] * c[0])
    )
    if not MIN_VOLUME < abs(volume) < math.inf:
        raise TextError("no cell: it has no volume")
    return [a, b, c]


def _cell_of_parameters(lattice: Mapping[str, Any]) -> list[list[float]]:
    from pymatgen.core import Lattice

    names = ("a", "b", "c", "alpha", "beta", "gamma")
    if any(lattice.get(name) is None for name in names):
        raise TextError("its lattice has neither a matrix nor lengths and angles")
    return _cell(Lattice.from_parameters(*(float(lattice[name]) for name in names)).matrix.tolist())


def _build(
    cell: list[list[float]], species: Sequence[dict[str, float]], positions: Any, *, cartesian: bool
) -> Structure:
    """Return the structure of a cell (Å), shares of elements, and positions (n_atoms, 3), Å or fractional."""
    from pymatgen.core import Structure

    if not species or len(species) != len(positions):
        raise TextError(f"{len(positions)} positions for {len(species)} atoms")
    if len(species) > MAX_ATOMS:
        raise TextError(f"{len(species)} atoms are more than the {MAX_ATOMS} that are read")
    coords = [[float(x) for x in position] for position in positions]
    if not all(len(position) == 3 and all(map(math.isfinite, position)) for position in coords):
        raise TextError("a position is not of three numbers")
    whole: Sequence[Any] = [next(iter(s)) if list(s.values()) == [1.0] else s for s in species]
    return Structure(cell, whole, coords, coords_are_cartesian=cartesian)


def _bare(found: Structure) -> Structure:
    """Return the structure without oxidation states and properties of sites."""
    from pymatgen.core import Element

    if not found.site_properties and all(
        isinstance(kind, Element) for site in found for kind in site.species
    ):
        return found
    species = [_shares((kind.symbol, share) for kind, share in site.species.items()) for site in found]
    return _build(found.lattice.matrix.tolist(), species, found.frac_coords.tolist(), cartesian=False)
