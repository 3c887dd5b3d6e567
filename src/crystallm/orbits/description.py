"""Structure <-> description of a crystal by what symmetry leaves free.

A description holds the composition of the conventional cell, the space group, the orbits (element, Wyckoff
position, free coordinates in thousandths of a cell edge) and the free parameters of the cell. These are
relative to the atoms, in steps of which 200 are a factor of e (one is 0.5 %). With V the volume of the cell
and V0 the sum of the volumes of its atoms (`elements.Element.volume`), the free parameters become

    a                    round(200 ln(V / V0))
    b, c                 round(200 ln(b / a)), round(200 ln(c / a))
    alpha, beta, gamma   tenths of a degree

So a = (V / (b/a * c/a * f))^(1/3), where a length that the group ties to a has the ratio 1 and f =
sqrt(1 - cos^2 alpha - cos^2 beta - cos^2 gamma + 2 cos alpha cos beta cos gamma).

Of the equivalent descriptions of a crystal, `describe` returns the canonical one (see `orbits.canonical`),
with elements by rising electronegativity and orbits sorted by (element, letter, coordinates).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crystallm.crystallography import cells, elements, space_groups
from crystallm.errors import InputError, TextError
from crystallm.geometry.symmetry_search import find_symmetry
from crystallm.orbits import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pymatgen.core import Structure

    from crystallm.crystallography.space_groups import Floats, SpaceGroup

STEPS = canonical.STEPS  # of a coordinate in a cell edge
MAX_COUNT = 3999  # atoms of one element in a cell
SCALE = 200  # steps of a volume or a ratio to a factor of e


class Orbit(NamedTuple):
    """Atoms of one element on one Wyckoff position.

    Attributes:
        label: multiplicity and letter, '4c'.
        coordinates: values of the free parameters, in thousandths of a cell edge, 0 to 999.
    """

    element: str
    label: str
    coordinates: tuple[int, ...]


@dataclass(frozen=True)
class Description:
    """A crystal in the canonical form of this language.

    Attributes:
        composition: (element, count in the conventional cell), in the order of the language.
        space_group: number.
        cell: a number for each free cell parameter, in the order of `SpaceGroup.free_cell`: for a, steps of
            the volume, round(200 ln(V / V0)); for b and c, steps of b/a and c/a; for angles, tenths of a
            degree (see the head of this module).
    """

    composition: tuple[tuple[str, int], ...]
    space_group: int
    orbits: tuple[Orbit, ...]
    cell: tuple[int, ...]


def check_count(symbol: str, count: int) -> None:
    """Raise InputError for a number of atoms of an element without tokens."""
    if not 0 < count <= MAX_COUNT:
        raise InputError(f"{count} atoms of {symbol} in a cell: this language has 1 to {MAX_COUNT}")


def factor_of(steps: float) -> float:
    """Return the factor of a number of steps."""
    return math.exp(steps / SCALE)


def to_structure(description: Description) -> Structure:
    """Return the conventional cell of a description.

    Raises:
        TextError: the cell is flat, or an orbit's coordinates put it on a position of lower multiplicity.
    """
    from pymatgen.core import Lattice, Structure

    parameters = _parameters(description)
    images = _images(description)
    species = [symbol for symbol, points in images for _ in points]
    return Structure(Lattice.from_parameters(*parameters), species, np.vstack([p for _, p in images]))


def to_text(description: Description) -> str:
    """Return the standard text (see `cif`) of a description, with its space group.

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
    """Return all cell parameters (Å, degrees) of a description, checked."""
    group = space_groups.get(description.space_group)
    return cell_parameters(description.composition, group, description.cell)


def volume_of_atoms(composition: Iterable[tuple[str, int]]) -> float:
    """Return V0, the sum of the volumes of the atoms of a composition, Å^3."""
    return sum(count * elements.get(symbol).volume for symbol, count in composition)


def cell_parameters(
    composition: Iterable[tuple[str, int]], group: SpaceGroup, cell: Iterable[int]
) -> tuple[float, float, float, float, float, float]:
    """Return a, b, c (Å), alpha, beta, gamma (degrees) of the free cell parameters of a description.

    Args:
        composition: (element, count in the conventional cell).

    Raises:
        TextError: no cell has such angles.
    """
    values = dict(zip(group.free_cell, cell, strict=True))
    volume = volume_of_atoms(composition) * factor_of(values["a"])
    free = {name: factor_of(value) if len(name) == 1 else value / 10 for name, value in values.items()}
    _, b, c, *angles = group.complete_cell({**free, "a": 1.0})  # b / a and c / a
    a = (volume / (b * c * math.sqrt(_check_cell(angles)))) ** (1 / 3)
    return a, a * b, a * c, angles[0], angles[1], angles[2]


def _images(description: Description) -> list[tuple[str, Floats]]:
    """Return element and all points [multiplicity, 3] of each orbit, checked."""
    group = space_groups.get(description.space_group)
    orbits = []
    for orbit in description.orbits:
        position = group.by_label[orbit.label]
        images = group.orbit(position.point([value / STEPS for value in orbit.coordinates]))
        if len(images) != position.multiplicity:
            raise TextError(
                f"{orbit.element} at {tuple(v / STEPS for v in orbit.coordinates)} lies on a position of "
                f"multiplicity {len(images)} of {group.symbol}, not on {orbit.label}"
            )
        orbits.append((orbit.element, images))
    return orbits


def _check_cell(angles: Sequence[float]) -> float:
    """Return (V / abc)^2 of a cell with these angles (degrees), which must be positive."""
    square = cells.squared_volume_factor(angles)
    if square <= 1e-6:
        raise TextError(f"no cell has the angles {tuple(angles)} degrees")
    return square


def describe(structure: Structure, symprec: float = 0.1) -> Description:
    """Return the canonical description of a structure.

    Args:
        structure: ordered, any cell.
        symprec: distance tolerance of the symmetry search, Å.

    Raises:
        TextError: spglib finds no symmetry, or an orbit that no Wyckoff position holds.
        InputError: no atom or too many, a disordered site, an element without a token, NaN or infinity.
    """
    if not len(structure):
        raise InputError("no atoms: a crystal has at least one")
    if not structure.is_ordered:
        raise InputError(
            f"{structure.formula}: sites shared by elements or partly empty; this language has "
            "ordered crystals only"
        )
    if not (np.isfinite(structure.lattice.matrix).all() and np.isfinite(structure.frac_coords).all()):
        raise InputError("a cell or coordinates with NaN or infinity")  # spglib would end the process
    dataset = symmetry(structure, symprec)
    atoms = [elements.SYMBOLS_BY_NUMBER[int(number) - 1] for number in dataset.std_types]
    return _describe(space_groups.get(dataset.number), dataset.std_lattice, dataset.std_positions, atoms)


def symmetry(structure: Structure, symprec: float = 0.1) -> Any:
    """Return the symmetry of an ordered structure with finite numbers, as spglib finds it.

    Raises:
        TextError: no symmetry.
        InputError: an element without a token.
    """
    numbers = [elements.get(str(species.symbol)).number for species in structure.species]
    dataset = find_symmetry(structure.lattice.matrix, structure.frac_coords, numbers, symprec)
    if dataset is None:
        raise TextError(f"spglib finds no symmetry at {symprec=} Å: are atoms on top of each other?")
    return dataset


def _describe(group: SpaceGroup, lattice: Any, positions: Floats, atoms: list[str]) -> Description:
    """Return the canonical description of a conventional cell in the setting of `space_groups`."""
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
    steps = [*(SCALE * np.log(factors)), *(10 * angles)]
    values = dict(zip(space_groups.PARAMETERS, steps, strict=True))
    cell = tuple(round(float(values[name])) for name in group.free_cell)
    return of_orbits(composition, group, items, cell)


def of_orbits(
    composition: tuple[tuple[str, int], ...],
    group: SpaceGroup,
    items: list[tuple[int, int, Floats]],
    cell: tuple[int, ...],
) -> Description:
    """Return the canonical description of orbits.

    Args:
        composition: as in `Description`.
        items: index of the element in the composition, index of the Wyckoff position, and a point of it.
        cell: as in `Description`.

    Raises:
        TextError: an orbit lies on a position of lower multiplicity.
    """
    found = canonical.smallest(group, items)
    orbits = []
    for rank, index, coordinates in found:
        element, label = composition[rank][0], group.wyckoff[index].label
        if not group.is_general(index, [value / STEPS for value in coordinates]):
            raise TextError(f"{element} on {label} is too close to a position of lower multiplicity")
        orbits.append(Orbit(element, label, coordinates))
    return Description(composition, group.number, tuple(orbits), cell)
