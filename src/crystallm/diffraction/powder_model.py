"""A crystal as free parameters of a powder pattern: cell, coordinates, and the intensities they give.

The group ties the cell and the orbits (see `crystallography.space_groups`), so that any values of the free
parameters are a crystal of the group. For a family of reflections h with m members:

    F_h = exp(-B s^2) sum over orbits j of f_j(s) sum over points p of j of exp(2 pi i h.p), s = 1 / (2 d)
    I_h = m LP(theta_h) |F_h|^2

B is one isotropic displacement parameter of all atoms, Å^2. Does not depend on profiles.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from crystallm.crystallography import space_groups
from crystallm.diffraction.radiation import Radiation, scattering
from crystallm.diffraction.reflections import families, quadratic, reciprocal_metric, volumes
from crystallm.orbits.canonical import STEPS
from crystallm.orbits.description import cell_parameters

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from crystallm.crystallography.space_groups import Floats, Ints, SpaceGroup
    from crystallm.orbits.description import Description


WEAKEST = 1e-5
"""Intensity of a line that is listed, relative to the strongest."""


class OrbitOfElement(NamedTuple):
    """An orbit: its element, and the index of its Wyckoff position."""

    element: str
    position: int


@dataclass(frozen=True, eq=False)
class PowderCrystal:
    """A crystal of a space group, as real numbers.

    Attributes:
        group: of the crystal.
        orbits: in the order of their coordinates.
        cell: free cell parameters, in the order of `SpaceGroup.free_cell`; Å, degrees.
        coordinates: free coordinates of all orbits, one after the other, fractions.
    """

    group: SpaceGroup
    orbits: tuple[OrbitOfElement, ...]
    cell: Floats
    coordinates: Floats

    @classmethod
    def of(cls, description: Description) -> Self:
        """Return the crystal of a description. Raises TextError: no cell has its angles."""
        group = space_groups.get(description.space_group)
        full = cell_parameters(description.composition, group, description.cell)
        places = [space_groups.PARAMETERS.index(name) for name in group.free_cell]
        labels = {position.label: i for i, position in enumerate(group.wyckoff)}
        values = [value / STEPS for orbit in description.orbits for value in orbit.coordinates]
        return cls(
            group,
            tuple(OrbitOfElement(orbit.element, labels[orbit.label]) for orbit in description.orbits),
            np.array(full)[places],
            np.array(values, dtype=np.float64),
        )

    @property
    def elements(self) -> tuple[str, ...]:
        """Elements, each once."""
        return tuple(dict.fromkeys(orbit.element for orbit in self.orbits))

    @property
    def full_cell(self) -> Floats:
        """All six cell parameters."""
        return complete(self.group, self.cell)

    @property
    def n_free(self) -> int:
        """Number of free parameters, of cell and coordinates."""
        return len(self.cell) + len(self.coordinates)

    @property
    def n_atoms(self) -> int:
        """Atoms of the conventional cell."""
        return sum(self.group.wyckoff[orbit.position].multiplicity for orbit in self.orbits)

    @property
    def n_primitive(self) -> int:
        """Atoms of the primitive cell."""
        return self.n_atoms // self.group.n_centrings

    @property
    def density(self) -> float:
        """Atoms per Å^3."""
        return self.n_atoms / float(volumes(self.full_cell))

    def with_values(self, *, cell: Floats | None = None, coordinates: Floats | None = None) -> Self:
        """Return the crystal with another cell or other coordinates."""
        return replace(
            self,
            cell=self.cell if cell is None else cell,
            coordinates=self.coordinates if coordinates is None else coordinates,
        )

    def points(self) -> list[tuple[str, Floats]]:
        """Return element and points [multiplicity, 3] of each orbit."""
        return [
            (orbit.element, (matrices @ values + shifts) % 1.0)
            for orbit, (matrices, shifts), values in zip(
                self.orbits, self.maps, self.split(self.coordinates), strict=True
            )
        ]

    def structure(self) -> Structure:
        """Return the conventional cell."""
        from pymatgen.core import Lattice, Structure

        points = self.points()
        species = [symbol for symbol, own in points for _ in own]
        return Structure(
            Lattice.from_parameters(*self.full_cell.tolist()), species, np.vstack([p for _, p in points])
        )

    def cif(self) -> str:
        """Return a CIF with all operators of the group."""
        from crystallm.cif import writer

        points = self.points()
        counts: dict[str, int] = {}
        for symbol, own in points:
            counts[symbol] = counts.get(symbol, 0) + len(own)
        rows = [(symbol, own.tolist()) for symbol, own in points]
        cell = tuple(self.full_cell.tolist())
        return writer.to_cif(writer.write(counts, self.group.symbol, self.group.number, cell, rows))

    @cached_property
    def maps(self) -> list[tuple[Floats, Floats]]:
        """The maps of each orbit, see `SpaceGroup.orbit_maps`."""
        return [self.group.orbit_maps[orbit.position] for orbit in self.orbits]

    def split(self, values: Floats) -> list[Floats]:
        """Return values of free coordinates by orbit."""
        lengths = [len(self.group.wyckoff[orbit.position].free) for orbit in self.orbits]
        return np.split(values, np.cumsum(lengths)[:-1])


def complete(group: SpaceGroup, cells: Floats) -> Floats:
    """Return all six parameters [..., 6] of free cell parameters [..., n_free]."""
    values = dict(zip(group.free_cell, np.moveaxis(cells, -1, 0), strict=True))
    full = group.complete_cell(values)  # arrays do as well as numbers
    return np.stack([np.broadcast_to(value, cells.shape[:-1]) for value in full], axis=-1).astype(np.float64)


class Intensities(NamedTuple):
    """Intensities of families, without scale, and their derivatives.

    Attributes:
        two_theta: [n] of the stronger line, degrees.
        values: [n] I_h.
        by_coordinate: [n, n_coordinates] dI_h / dx; None if not requested.
        by_displacement: [n] dI_h / dB.
    """

    two_theta: Floats
    values: Floats
    by_coordinate: Floats | None
    by_displacement: Floats


class ReflectionSet:
    """The families of reflections of a crystal within an angle, whose intensities follow its parameters.

    Args:
        crystal: of which the group and orbits count, and the cell for which families are listed.
        two_theta_max: degrees.
        margin: share of the spacings by which the cell may shrink.
    """

    def __init__(
        self, crystal: PowderCrystal, radiation: Radiation, two_theta_max: float, margin: float = 0.01
    ) -> None:
        self.crystal, self.radiation = crystal, radiation
        d_min = radiation.wavelength / (2 * np.sin(np.radians(two_theta_max) / 2))
        found = families(crystal.group, crystal.full_cell, d_min * (1 - margin))
        self.indices: Ints = found[0]
        self.multiplicities: Floats = found[1]
        self.quadratic = quadratic(self.indices)
        self._phases = [
            (self.indices @ shifts.T, np.einsum("ni,pij->npj", self.indices, matrices))
            for matrices, shifts in crystal.maps
        ]

    def squares(self, cells: Floats) -> Floats:
        """Return 1/d^2 [..., n] of free cell parameters [..., n_free], 1/Å^2."""
        return np.asarray(reciprocal_metric(complete(self.crystal.group, cells)) @ self.quadratic.T)

    def intensities(
        self, crystal: PowderCrystal, displacement: float = 0.0, *, derivatives: bool = False
    ) -> Intensities:
        """Return the intensities of a crystal of the same group and orbits.

        Args:
            displacement: B, Å^2.
            derivatives: whether to return those by coordinates.
        """
        squares = self.squares(crystal.cell)
        two_theta = self.radiation.two_theta(squares)
        elements = crystal.elements
        factors = scattering(elements, squares, self.radiation.kind) * np.exp(-displacement * squares / 4)
        amplitude = np.zeros(len(squares), dtype=np.complex128)
        slopes = []
        for orbit, (fixed, moving), values in zip(
            crystal.orbits,
            self._phases,
            crystal.split(crystal.coordinates),
            strict=True,
        ):
            waves = np.exp(2j * np.pi * (fixed + moving @ values))  # (n, n_points)
            factor = factors[elements.index(orbit.element)]
            amplitude += factor * waves.sum(axis=1)
            if derivatives and len(values):
                slopes.append(2j * np.pi * factor[:, None] * np.einsum("np,npj->nj", waves, moving))
        scale = self.multiplicities * self.radiation.lorentz_polarization(
            np.radians(np.clip(two_theta, 0.1, 179.0)) / 2
        )
        values = scale * np.abs(amplitude) ** 2
        by_coordinate = None
        if derivatives:
            slope = np.hstack(slopes) if slopes else np.zeros((len(squares), 0))
            by_coordinate = 2 * scale[:, None] * np.real(np.conj(amplitude)[:, None] * slope)
        return Intensities(two_theta, values, by_coordinate, -values * squares / 2)


class PowderLine(NamedTuple):
    """A line of a powder pattern: 2 theta (degrees), d (Å), intensity (100 for the strongest), indices.

    Indices are h, k, l, or h, k, i, l of a hexagonal cell.
    """

    two_theta: float
    d: float
    intensity: float
    indices: tuple[tuple[int, ...], ...]


def powder_lines(structure: Structure, radiation: Radiation, low: float, high: float) -> list[PowderLine]:
    """Return the lines of a structure between two angles (degrees), without displacements.

    Reflections at one angle are one line, with one of each set of indices that differ in order and signs.
    Lines weaker than `WEAKEST` are left out.
    """
    atoms = tuple(OrbitOfElement(site.specie.symbol, 0) for site in structure)
    cell = np.array(structure.lattice.parameters)
    crystal = PowderCrystal(space_groups.get(1), atoms, cell, structure.frac_coords.ravel())
    reflections = ReflectionSet(crystal, radiation, high)
    found = reflections.intensities(crystal)
    spacings = 1 / np.sqrt(reflections.squares(crystal.cell))
    rows: dict[float, list[int]] = {}
    for i, angle in enumerate(found.two_theta.tolist()):
        if low <= angle <= high:
            rows.setdefault(round(angle, 3), []).append(i)
    strongest = max((float(found.values[own].sum()) for own in rows.values()), default=0.0)
    lines = []
    for own in rows.values():
        intensity = float(found.values[own].sum())
        if intensity <= WEAKEST * strongest:
            continue
        present = [i for i in own if found.values[i] > WEAKEST * strongest / len(own)]
        indices = sorted(reflections.indices[present].tolist())
        if structure.lattice.is_hexagonal():
            indices = [[h, k, -h - k, l] for h, k, l in indices]
        sets = {tuple(sorted(map(abs, hkl))): tuple(hkl) for hkl in indices}
        first = own[0]
        lines.append(
            PowderLine(
                float(found.two_theta[first]),
                float(spacings[first]),
                100 * intensity / strongest,
                tuple(sets.values()),
            )
        )
    return lines
