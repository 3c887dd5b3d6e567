"""Standard text -> structure, with rows moved onto Wyckoff positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystallm.cif import parser
from crystallm.cif.parser import ParsedText, Row, parse
from crystallm.errors import TextError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymatgen.core import Structure

SNAP = 1e-3
"""Largest distance of a printed coordinate from its Wyckoff position (fraction). Rounding causes up to
1.5e-4, in (x, 2x, z). In a cell of 10 Å it is 0.01 Å, a tenth of the tolerance of the symmetry search."""


def to_structure(text: str) -> Structure:
    """Return the conventional cell that the rows of a text describe, atoms in the order of the rows.

    Does not check the formulas against the rows.

    Raises:
        TextError: not a standard text, a partly occupied site, or a row whose position does not have the
            multiplicity printed.
    """
    from pymatgen.core import Lattice, Structure

    parsed = parse(text)
    species: list[str] = []
    points: list[list[float]] = []
    for row, _, orbit in wyckoff_orbits(parsed):
        species += [row.symbol] * row.multiplicity
        points += orbit
    return Structure(Lattice.from_parameters(*parsed.cell), species, points)


def wyckoff_orbits(parsed: ParsedText) -> Iterator[tuple[Row, list[float], list[list[float]]]]:
    """Yield each row, its point moved onto the Wyckoff position, and all images (fractions in [0, 1))."""
    import numpy as np

    from crystallm.crystallography import space_groups

    group = space_groups.get(parsed.space_group_number)
    group_name = f"{group.symbol} (#{group.number})"
    n_atoms = 0
    for row in parsed.rows:
        n_atoms += row.multiplicity
        if n_atoms > parser.MAX_ATOMS:
            raise TextError(f"more than {parser.MAX_ATOMS} atoms in the cell", row.line)
        if row.occupancy != 1:
            raise TextError(
                f"{row.label[:20]}: occupancy {row.occupancy:g}; only full occupancy is read", row.line
            )
        printed = np.array([row.x, row.y, row.z])
        snapped = group.snap(printed, row.multiplicity, SNAP)
        if snapped is None:
            raise TextError(
                f"{row.label[:20]} at ({row.x:g}, {row.y:g}, {row.z:g}) lies on no position of multiplicity "
                f"{row.multiplicity} of {group_name}: the point has {len(group.orbit(printed, SNAP))} images",
                row.line,
            )
        point = snapped[1] % 1.0
        orbit = group.orbit(point)
        if len(orbit) != row.multiplicity:
            raise TextError(
                f"{row.label[:20]} at ({row.x:g}, {row.y:g}, {row.z:g}) has {len(orbit)} images in "
                f"{group_name}, not {row.multiplicity}",
                row.line,
            )
        yield row, point.tolist(), orbit.tolist()
