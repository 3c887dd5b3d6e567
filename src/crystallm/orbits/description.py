"""Descriptions of crystals by what symmetry leaves free: structure <-> canonical description.

A description holds the composition of the conventional cell, the space group, the orbits (element, Wyckoff
position, free coordinates in thousandths of a cell edge) and the free numbers of the cell. The cell is told
beside its atoms, in steps of which 200 are a factor of e (one is 0.5 %). With V its volume and V0 the sum of
the volumes of the composition's atoms (`elements.Element.volume`), and of the parameters that the group
leaves free,

    a                    tells round(200 ln(V / V0))
    b, c                 tell round(200 ln(b / a)), round(200 ln(c / a))
    alpha, beta, gamma   tell tenths of a degree

So a = (V / (b/a * c/a * f))^(1/3), where a length that the group ties to a has the ratio 1 and f =
sqrt(1 - cos^2 alpha - cos^2 beta - cos^2 gamma + 2 cos alpha cos beta cos gamma).

Of the equivalent descriptions of a crystal, `describe` gives the canonical one (see `canonical`), with
elements by rising electronegativity and orbits sorted by (element, letter, coordinates).

Refuses to know tokens (`orbits` does). Imports pymatgen and spglib only where a structure comes or goes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crystallm.crystallography import elements, space_groups
from crystallm.errors import InputError, TextError
from crystallm.geometry.symmetry_search import find_symmetry
from crystallm.orbits import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pymatgen.core import Structure

    from crystallm.crystallography.space_groups import Floats, SpaceGroup


STEPS = canonical.STEPS  # coordinates are told in thousandths of a cell edge

MAX_COUNT = 3999  # atoms of one element in a cell

SCALE = 200  # steps of a volume or a ratio to a factor of e


class Orbit(NamedTuple):
    """Atoms of one element on one Wyckoff position.

    `label` is multiplicity and letter, '4c'; `coordinates` are the values of the position's free parameters,
    in thousandths of a cell edge, 0 to 999.
    """

    element: str
    label: str
    coordinates: tuple[int, ...]


@dataclass(frozen=True)
class Description:
    """A crystal in the canonical form of this language.

    Attributes:
        composition: (element, count in the conventional cell) as the text begins.
        space_group: number.
        orbits: in canonical order.
        cell: a number for each free cell parameter, in the order of `SpaceGroup.free_cell`: for a, steps of
            the volume, round(200 ln(V / V0)); for b and c, steps of b/a and c/a; for angles, tenths of a
            degree (see the head of this module).
    """

    composition: tuple[tuple[str, int], ...]
    space_group: int
    orbits: tuple[Orbit, ...]
    cell: tuple[int, ...]


def check_count(symbol: str, count: int) -> None:
    """Refuse, by an InputError, a number of atoms of an element that this language does not write."""
    if not 0 < count <= MAX_COUNT:
        raise InputError(f"{count} atoms of {symbol} in a cell: this language writes 1 to {MAX_COUNT}")


def factor_of(steps: int) -> float:
    """The factor that so many steps are."""
    return math.exp(steps / SCALE)


def to_structure(description: Description) -> Structure:
    """The conventional cell of a description as a pymatgen structure.

    Raises:
        TextError: the cell is flat, or an orbit's coordinates put it on a position of lower multiplicity.
    """
    from pymatgen.core import Lattice, Structure

    parameters = _parameters(description)
    images = _images(description)
    species = [symbol for symbol, points in images for _ in points]
    return Structure(Lattice.from_parameters(*parameters), species, np.vstack([p for _, p in images]))


def to_text(description: Description) -> str:
    """The standard text (see `cif`) of a description, with the space group as it was written.

    Raises:
        TextError: as `to_structure`, or less than one formula unit.
    """
    from crystallm.cif import writer

    group = space_groups.get(description.space_group)
    images = _images(description)
    counts: dict[str, int] = {}
    for symbol, points in images:
        counts[symbol] = counts.get(symbol, 0) + len(points)
    points_of = [(symbol, points.tolist()) for symbol, points in images]
    return writer.write(counts, group.symbol, group.number, _parameters(description), points_of)


def _parameters(description: Description) -> tuple[float, float, float, float, float, float]:
    """All cell parameters (Å, degrees) of a description, checked."""
    group = space_groups.get(description.space_group)
    return cell_parameters(description.composition, group, description.cell)


def volume_of_atoms(composition: Iterable[tuple[str, int]]) -> float:
    """V0, the sum of the volumes of a composition's atoms, Å^3."""
    return sum(count * elements.get(symbol).volume for symbol, count in composition)


def cell_parameters(
    composition: Iterable[tuple[str, int]], group: SpaceGroup, cell: Iterable[int]
) -> tuple[float, float, float, float, float, float]:
    """All cell parameters a, b, c (Å), alpha, beta, gamma (degrees) of what a text tells.

    Args:
        composition: (element, count in the conventional cell).
        group: of the crystal.
        cell: see `Description`.

    Raises:
        TextError: no cell has such angles.
    """
    told = dict(zip(group.free_cell, cell, strict=True))
    volume = volume_of_atoms(composition) * factor_of(told["a"])
    free = {name: factor_of(value) if len(name) == 1 else value / 10 for name, value in told.items()}
    _, b, c, *angles = group.complete_cell({**free, "a": 1.0})  # b / a and c / a
    a = (volume / (b * c * math.sqrt(_check_cell(angles)))) ** (1 / 3)
    return a, a * b, a * c, angles[0], angles[1], angles[2]


def _images(description: Description) -> list[tuple[str, Floats]]:
    """Element and all points [multiplicity, 3] of each orbit, checked."""
    group = space_groups.get(description.space_group)
    found = []
    for orbit in description.orbits:
        position = group.by_label[orbit.label]
        images = group.orbit(position.point([value / STEPS for value in orbit.coordinates]))
        if len(images) != position.multiplicity:
            raise TextError(
                f"{orbit.element} at {tuple(v / STEPS for v in orbit.coordinates)} lies on a position of "
                f"multiplicity {len(images)} of {group.symbol}, not on {orbit.label}"
            )
        found.append((orbit.element, images))
    return found


def _check_cell(angles: Sequence[float]) -> float:
    """(V / abc)^2 of a cell with these angles (degrees), which must be positive."""
    x, y, z = (math.cos(math.radians(angle)) for angle in angles)
    square = 1 - (x * x + y * y + z * z) + 2 * x * y * z
    if square <= 1e-6:
        raise TextError(f"no cell has the angles {tuple(angles)} degrees")
    return square


def describe(structure: Structure, symprec: float = 0.1) -> Description:
    """The canonical description of a structure.

    Args:
        structure: ordered, any cell.
        symprec: distance tolerance of spglib (Å) with which symmetry is sought.

    Raises:
        TextError: spglib finds no symmetry, or an orbit that no Wyckoff position holds.
        InputError: no atom, too many, or one that is not fully there; an element without a token; a number
            that is none.
    """
    if not len(structure):
        raise InputError("no atom: this language writes crystals of at least one")
    if not structure.is_ordered:
        raise InputError(
            f"{structure.formula}: sites shared by elements or partly empty; this language writes ordered "
            "crystals only"
        )
    if not (np.isfinite(structure.lattice.matrix).all() and np.isfinite(structure.frac_coords).all()):
        raise InputError("a cell or coordinates that are no numbers")  # spglib would end the process
    found = symmetry(structure, symprec)
    atoms = [elements.SYMBOLS_BY_NUMBER[int(number) - 1] for number in found.std_types]
    return _describe(space_groups.get(found.number), found.std_lattice, found.std_positions, atoms)


def symmetry(structure: Structure, symprec: float = 0.1) -> Any:
    """What spglib finds of an ordered structure with finite numbers.

    Raises:
        TextError: no symmetry.
        InputError: an element without a token.
    """
    numbers = [elements.get(str(species.symbol)).number for species in structure.species]
    found = find_symmetry(structure.lattice.matrix, structure.frac_coords, numbers, symprec)
    if found is None:
        raise TextError(f"spglib finds no symmetry at {symprec=} Å: are atoms on top of each other?")
    return found


def _describe(group: SpaceGroup, lattice: Any, positions: Floats, atoms: list[str]) -> Description:
    """Canonical description of a conventional cell in the setting of `spacegroups`."""
    counts = {symbol: atoms.count(symbol) for symbol in dict.fromkeys(atoms)}
    order = elements.electronegativity_order(counts)
    for symbol in order:
        check_count(symbol, counts[symbol])
    items = []
    for rank, symbol in enumerate(order):
        points = positions[[i for i, atom in enumerate(atoms) if atom == symbol]]
        items += [(rank, index, point) for index, point in canonical.find_orbits(group, points)]
    lengths = np.linalg.norm(lattice, axis=1)
    a, b, c = lattice / lengths[:, None]
    angles = np.degrees(np.arccos(np.clip([b @ c, a @ c, a @ b], -1, 1)))
    composition = tuple((symbol, counts[symbol]) for symbol in order)
    volume = abs(float(np.linalg.det(lattice))) / volume_of_atoms(composition)
    factors = [volume, *(lengths[1:] / lengths[0])]
    told = [*(SCALE * np.log(factors)), *(10 * angles)]
    values = dict(zip(space_groups.PARAMETERS, told, strict=True))
    result = Description(
        composition=composition,
        space_group=group.number,
        orbits=tuple(
            Orbit(order[rank], group.wyckoff[index].label, coordinates)
            for rank, index, coordinates in canonical.smallest(group, items)
        ),
        cell=tuple(round(float(values[name])) for name in group.free_cell),
    )
    for orbit in result.orbits:
        point = group.by_label[orbit.label].point([value / STEPS for value in orbit.coordinates])
        if len(group.orbit(point)) != group.by_label[orbit.label].multiplicity:
            raise TextError(
                f"{orbit.element} on {orbit.label} lies too close to a position of lower multiplicity"
            )
    return result
