"""Neighbors of atoms as pymatgen's CrystalNN finds them, an order of magnitude faster.

CrystalNN (Pan et al., Inorg. Chem. 60, 1590, 2021) takes the Voronoi cell of an atom among all atoms within a
radius, 7 Å, which is doubled while the cell is open. Each face f of the cell has a weight

    w_f = (omega_f / max omega) (omega_f / A_f) (1 + 3 sqrt(|dX| / 3.3)),      then over its maximum, times
    1 if d <= r + 0.5 Å, 0 if d >= r + 1 Å, (1 + cos(pi (d - r - 0.5) / 0.5)) / 2 between,

with the solid angle omega, the area A, the difference of electronegativities dX (left out where one is not
known), the distance d and the sum of covalent radii r. The weights, rounded to 0.001, divide the neighbors
into shells. The probability of a coordination number is the area that its step takes of a quarter circle; the
most probable one is taken.

Needs numpy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise, product

import numpy as np

from crystallm.crystallography import elements
from crystallm.crystallography.space_groups import Floats, Ints
from crystallm.errors import CrystallmError
from crystallm.geometry import voronoi

RADIUS = 7.0
"""Å around an atom in which CrystalNN searches first."""
FIRST = 40
"""Nearest atoms from which a Voronoi cell is first computed; enough for nine cells of ten."""
SOFT, HARD = 0.5, 1.0
"""Å beyond the sum of covalent radii from which a neighbor counts less, and not at all."""
CONTRAST = 3.0
"""Weight of a difference of electronegativity; 3.3 is the largest difference."""
NO_FACE = 1e-9
"""Solid angle, and area in Å^2, up to which two cells only touch."""
SAME = 1e-5
"""Difference of fractional coordinates up to which two atoms are on one point. Which of them is a neighbor of
others then depends on their order, and CrystalNN itself is used."""
FEW = 50
"""Most atoms of which each pair is compared."""
_CORNERS = np.array([(1.0, 1.0, 1.0), (-1.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, -1.0)])


class NeighborFinder:
    """Find the neighbors of atoms in a crystal.

    Args:
        vectors: [3, 3] of the cell (rows), Å.
        coords: [n_atoms, 3] fractions.
    """

    def __init__(self, vectors: Floats, coords: Floats, symbols: Sequence[str]) -> None:
        self._vectors = np.asarray(vectors, dtype=np.float64)
        self._coords = np.asarray(coords, dtype=np.float64) % 1.0
        self._symbols = list(symbols)
        # Distances of opposite faces of the cell, Å.
        self._spacings = [1.0 / math.hypot(*column) for column in np.linalg.inv(self._vectors).T.tolist()]
        corners = _CORNERS @ self._vectors
        self._longest = math.sqrt(float(np.einsum("ij,ij->i", corners, corners).max())) + 0.01
        kinds = list(dict.fromkeys(self._symbols))
        kind_of = {symbol: kind for kind, symbol in enumerate(kinds)}
        self._kinds = np.array([kind_of[symbol] for symbol in self._symbols])
        self._contrast = np.array([[_contrast(a, b) for b in kinds] for a in kinds])
        radii = np.array([elements.get(symbol).covalent_radius for symbol in kinds])
        self._lengths = radii[:, None] + radii
        self._images: dict[float, tuple[Floats, Ints]] = {}
        self._doubled = _any_doubled(self._coords)

    def of(self, i: int) -> tuple[Ints, Floats]:
        """Return the neighbors of atom i; see `of_each`."""
        return self.of_each([i])[0]

    def of_each(self, atoms: Sequence[int]) -> list[tuple[Ints, Floats]]:
        """Return the neighbors of some atoms.

        Returns:
            For each of them the indices [n] of atoms, one for each image that is a neighbor, and the
            distances [n] to the nearest image of each, Å, which need not be the neighbor itself.

        Raises:
            CrystallmError: the Voronoi cell of an atom is open.
        """
        if self._doubled:
            return [self._from_pymatgen(i) for i in atoms]
        return [self._from_cell(i) for i in atoms]

    def _from_cell(self, i: int) -> tuple[Ints, Floats]:
        """Return the neighbors of atom i from its Voronoi cell; as `of`."""
        radius = RADIUS
        while True:
            points, squares, atoms = self._around(i, radius)
            faces = voronoi.cell(points, squares, FIRST, radius)
            if faces is not None:
                break
            if radius >= self._longest:
                raise CrystallmError(f"neighbors of site {i}: its Voronoi cell is open")
            radius = min(2 * radius, self._longest + 0.001)
        angles, areas = faces
        real = np.flatnonzero((angles > NO_FACE) & (areas > NO_FACE))
        angles, areas = angles[real], areas[real]
        kind, kinds = self._kinds[i], self._kinds[atoms[real]]
        weights = angles / angles.max() * (angles / areas) * self._contrast[kind, kinds]
        faded = _fading(np.sqrt(squares[real]) - self._lengths[kind, kinds])
        bonded = atoms[real[_bonded(weights / weights.max() * faded)]]
        indices = atoms.tolist()
        nearest = [indices.index(j) for j in bonded.tolist()]  # the first image is the nearest
        return bonded, np.sqrt(squares[nearest])

    def _around(self, i: int, radius: float) -> tuple[Floats, Floats, Ints]:
        """Return the vectors from an atom to all others within a radius, by rising length.

        Returns:
            The vectors [n, 3] in Å, the squares [n] of their lengths, and the indices [n] of the atoms.
        """
        if radius not in self._images:
            # From any point in the cell, the radius spans at most one more cell on either side.
            shifts = _shifts(*(math.ceil(radius / spacing) for spacing in self._spacings))
            # [n_shifts, n_atoms, 3]
            images = (self._coords @ self._vectors)[None] + (shifts @ self._vectors)[:, None]
            self._images[radius] = (
                images.reshape(-1, 3),
                np.arange(len(shifts) * len(self._coords)) % len(self._coords),
            )
        images, atoms = self._images[radius]
        off = images - self._coords[i] @ self._vectors
        squares = np.einsum("ij,ij->i", off, off)
        near = np.flatnonzero(squares <= radius * radius)
        near = near[np.argsort(squares[near], kind="stable")][1:]  # the first is the atom itself
        return off[near], squares[near], atoms[near]

    def _from_pymatgen(self, i: int) -> tuple[Ints, Floats]:
        """Return the neighbors of atom i from CrystalNN itself; as `of`."""
        from pymatgen.core import Structure
        from pymatgen.core.local_env import CrystalNN

        structure = Structure(self._vectors, self._symbols, self._coords)
        try:
            info = CrystalNN().get_nn_info(structure, i)  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001 - Voronoi cells fail in many ways on odd crystals
            raise CrystallmError(f"neighbors of site {i}: {str(error)[:100]}") from None
        indices = [neighbor["site_index"] for neighbor in info]
        if not indices:
            return np.zeros(0, dtype=np.int64), np.zeros(0)
        lengths = structure.lattice.get_all_distances(self._coords[i], self._coords[indices])[0]
        return np.array(indices), np.asarray(lengths)


def _any_doubled(coords: Floats) -> bool:
    """Return whether two of these points [n, 3], fractions, coincide."""
    if len(coords) > FEW:
        from scipy.spatial import cKDTree  # type: ignore[import-untyped]

        # Modulo twice, because -1e-17 modulo 1 is 1.
        return bool(cKDTree(coords % 1.0, boxsize=1).query_pairs(SAME, p=np.inf))
    off = coords[:, None] - coords  # [n, n, 3]
    near = (np.abs(off - np.rint(off)) <= SAME).all(axis=2)
    return int(np.count_nonzero(near)) > len(coords)


@cache
def _shifts(*reach: int) -> Floats:
    """Return all shifts [n, 3] by at most `reach` cells along each axis."""
    return np.array(list(product(*(range(-r, r + 1) for r in reach))), dtype=float)


def _fading(excess: Floats) -> Floats:
    """Return the weight of a neighbor at a distance beyond the sum of radii, Å."""
    share = np.minimum(np.maximum((excess - SOFT) / (HARD - SOFT), 0.0), 1.0)
    return np.asarray((1 + np.cos(math.pi * share)) / 2)


def _bonded(weights: Floats) -> list[int]:
    """Return which neighbors belong to the most probable coordination number, by their weights in [0, 1]."""
    rounded = [round(weight, 3) if weight else 0.0 for weight in weights.tolist()]
    steps = sorted({weight for weight in rounded if weight > 0}, reverse=True)
    if not steps:
        return []
    shares = [more - less for more, less in pairwise(map(_circle, (*steps, 0.0)))]
    largest = max(shares)
    if 1.0 - math.fsum(shares) > largest:
        return []
    least = steps[shares.index(largest)]
    return [i for i, weight in enumerate(rounded) if weight >= least]


@cache
def _circle(x: float) -> float:
    """Return the share of the area of a quarter of the unit circle below x, a multiple of 0.001."""
    return (x * math.sqrt(1 - x * x) + math.asin(x)) / (math.pi / 2)


@cache
def _contrast(one: str, other: str) -> float:
    """Return the factor of a pair of elements for their difference of electronegativity."""
    difference = abs(elements.get(one).electronegativity - elements.get(other).electronegativity)
    return 1.0 if math.isnan(difference) else 1.0 + CONTRAST * math.sqrt(difference / 3.3)


def reach(one: str, other: str) -> float:
    """Return the distance from which two elements are not neighbors, Å."""
    return elements.get(one).covalent_radius + elements.get(other).covalent_radius + HARD
