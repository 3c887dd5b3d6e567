"""Neighbors of atoms as pymatgen's CrystalNN finds them, an order of magnitude faster.

CrystalNN (Pan et al., Inorg. Chem. 60, 1590, 2021) takes the Voronoi cell of an atom among all atoms within a
radius, 7 Å, which is doubled while the cell is open. Each face f of the cell has a weight

    w_f = (omega_f / max omega) (omega_f / A_f) (1 + 3 sqrt(|dX| / 3.3)),      then over its maximum, times
    1 if d <= r + 0.5 Å, 0 if d >= r + 1 Å, (1 + cos(pi (d - r - 0.5) / 0.5)) / 2 between,

with the solid angle omega, the area A, the difference of electronegativities dX (left out where one is not
known), the distance d and the sum of covalent radii r. The weights, rounded to 0.001, divide the neighbors
into shells. The probability of a coordination number is the area that its step takes of a quarter circle; the
most probable one is taken.

The cell is found by duality: the planes p . x = p . p / 2 between an atom and its neighbors at p bound the
polyhedron dual to the convex hull of the points 2 p / (p . p). It is computed from the nearest atoms first. A
vertex at distance v from the atom cannot be cut off by atoms farther than 2 v, so more atoms are added until
the cell is that of all atoms within the radius. Areas and solid angles are sums of signed triangles over the
edges of the hull, all at once: edges of zero length, which are common in crystals, add nothing.

Needs numpy, scipy and pymatgen's table of covalent radii.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise, product
from typing import Any, NamedTuple

import numpy as np

from crystallm.crystallography import elements
from crystallm.crystallography.space_groups import Floats, Ints
from crystallm.errors import CrystallmError

RADIUS = 7.0
"""Å around an atom in which CrystalNN searches first."""
FIRST = 40
"""Nearest atoms from which a Voronoi cell is first computed; enough for nine cells of ten."""
SOFT, HARD = 0.5, 1.0
"""Å beyond the sum of covalent radii from which a neighbor counts less, and not at all."""
CONTRAST = 3.0
"""Weight of a difference of electronegativity; 3.3 is the largest difference."""
SAME = 1e-5
"""Difference of fractional coordinates up to which two atoms are on one point. Which of them is a neighbor of
others then depends on their order, and CrystalNN itself is used."""
FEW = 50
"""Most atoms of which each pair is compared."""
TOGETHER = 64
"""Atoms whose Voronoi cells are evaluated together."""

_CORNERS = np.array([(1.0, 1.0, 1.0), (-1.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, -1.0)])


class _VoronoiCell(NamedTuple):
    """The Voronoi cell of an atom, dual to a convex hull of points."""

    points: Floats  # [n, 3] Å from the atom, by rising distance, those of the hull
    squares: Floats  # of the distances of these and more
    atoms: Ints  # whose images they all are
    hull: Any
    corners: Floats  # [n_simplices, 3] of the cell, Å


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
        self._lengths = np.array([[_radius(a) + _radius(b) for b in kinds] for a in kinds])
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
        neighbors = []
        for start in range(0, len(atoms), TOGETHER):
            some = atoms[start : start + TOGETHER]
            neighbors += self._of_cells(some, [self._cell(i) for i in some])
        return neighbors

    def _of_cells(self, some: Sequence[int], cells: list[_VoronoiCell]) -> list[tuple[Ints, Floats]]:
        """Return the neighbors of some atoms from their Voronoi cells; as `of_each`."""
        real, angles, areas = _faces(cells)
        ends = np.cumsum([len(cell.points) for cell in cells])
        whose = np.searchsorted(ends, real, side="right")  # [n_faces] index of the cell
        starts = np.searchsorted(whose, np.arange(len(cells)))
        atoms = np.concatenate([cell.atoms[: len(cell.points)] for cell in cells])[real]
        one, other = self._kinds[np.asarray(some)][whose], self._kinds[atoms]
        weights = angles / np.maximum.reduceat(angles, starts)[whose]
        weights = weights * (angles / areas) * self._contrast[one, other]
        lengths = np.sqrt(np.concatenate([cell.squares[: len(cell.points)] for cell in cells])[real])
        faded = _fading(lengths - self._lengths[one, other])
        weights = weights / np.maximum.reduceat(weights, starts)[whose] * faded
        neighbors = []
        bounds = [*starts.tolist(), len(real)]
        for cell, first, end in zip(cells, bounds, bounds[1:], strict=False):
            bonded = atoms[first:end][_bonded(weights[first:end])]
            indices = cell.atoms.tolist()
            nearest = [indices.index(j) for j in bonded.tolist()]  # the first image is the nearest
            neighbors.append((bonded, np.sqrt(cell.squares[nearest])))
        return neighbors

    def _cell(self, i: int) -> _VoronoiCell:
        """Return the Voronoi cell of atom i."""
        radius = RADIUS
        while True:
            cell = _cell(*self._around(i, radius), radius)
            if cell is not None:
                return cell
            if radius >= self._longest:
                raise CrystallmError(f"neighbors of site {i}: its Voronoi cell is open")
            radius = min(2 * radius, self._longest + 0.001)

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


def _cell(points: Floats, squares: Floats, atoms: Ints, radius: float) -> _VoronoiCell | None:
    """Return the Voronoi cell around the origin; None if it is open.

    Args:
        points: [n, 3] all within the radius, by rising distance, Å.
        squares: [n] of those distances.
        atoms: [n] indices of their atoms.
        radius: Å.
    """
    from scipy.spatial import ConvexHull, QhullError

    n = min(FIRST, len(points))
    while True:
        some = points[:n]
        try:
            hull = ConvexHull(some * (2.0 / squares[:n])[:, None])
        except (QhullError, ValueError):  # fewer than four points, or all in a plane
            hull = None
        if hull is not None:
            equations = hull.equations
            offsets = equations[:, 3]
            if offsets.max() < -1e-9:
                corners = equations[:, :3] / -offsets[:, None]  # [n_simplices, 3] Å
                farthest = float(np.einsum("ij,ij->i", corners, corners).max())
                next_one = float(squares[n]) if n < len(points) else radius * radius
                if n == len(points) or 4 * farthest <= next_one:
                    return _VoronoiCell(some, squares, atoms, hull, corners)
        if n == len(points):
            return None
        n = min(2 * n, len(points))


def _cross(a: Floats, b: Floats) -> Floats:
    """Return the cross products [3, n] of column vectors."""
    return np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def _dot(a: Floats, b: Floats) -> Floats:
    """Return the dot products [n] of column vectors [3, n]."""
    return np.asarray(np.einsum("ij,ij->j", a, b))


def _faces(cells: list[_VoronoiCell]) -> tuple[Ints, Floats, Floats]:
    """Return the faces of Voronoi cells.

    Returns:
        Indices [n] of the points of all cells, one cell after the other, that have a face; its solid angle
        [n]; its area [n] (Å^2). Faces without area are left out.
    """
    points = np.concatenate([cell.points for cell in cells]).T  # [3, n_points]
    corners = np.concatenate([cell.corners for cell in cells]).T  # [3, n_simplices]
    duals = np.concatenate([cell.hull.points for cell in cells]).T
    sides, adjacent, n_points, n_sides = [], [], 0, 0
    for cell in cells:
        sides.append(cell.hull.simplices + n_points)
        adjacent.append(cell.hull.neighbors + n_sides)
        n_points += len(cell.points)
        n_sides += len(cell.corners)
    simplices = np.concatenate(sides).T  # [3, n_simplices] points of each triangle
    a, b, c = (duals[:, simplices[k]] for k in range(3))
    turned = _dot(_cross(b - a, c - a), corners) < 0  # a corner lies where the normal of its triangle points
    # The edge opposite to point k of a triangle separates it from adjacent[k]; each appears on both sides.
    here = np.tile(np.arange(n_sides), 3)
    there = np.concatenate(adjacent).T.ravel()
    once = here < there
    here, there = here[once], there[once]
    first = simplices[[1, 2, 0]].ravel()[once]
    second = simplices[[2, 0, 1]].ravel()[once]
    # Seen from outside, the corners of the face of `start` go round from `there` to `here` at this edge.
    start = np.where(turned[here], second, first)
    end = first + second - start
    face = np.concatenate([start, end])
    from_corner = np.concatenate([there, here])
    tail, tip = corners[:, from_corner], corners[:, np.concatenate([here, there])]
    foot = points[:, face] / 2  # of the plane: its point nearest to the atom
    height = np.sqrt(_dot(foot, foot))
    triple = _dot(foot, _cross(tail, tip))
    l1, l2 = np.sqrt(_dot(tail, tail)), np.sqrt(_dot(tip, tip))
    # Van Oosterom and Strackee, IEEE Trans. Biomed. Eng. 30, 125 (1983); foot . corner = height^2.
    below = height * (l1 * l2 + _dot(tail, tip) + height * (l1 + l2))
    angles = np.bincount(face, 2 * np.arctan2(triple, below), minlength=n_points)
    areas = np.bincount(face, triple / (2 * height), minlength=n_points)
    real: Ints = np.flatnonzero((angles > 1e-9) & (areas > 1e-9))
    return real, np.asarray(angles[real]), np.asarray(areas[real])


def _fading(excess: Floats) -> Floats:
    """Return the weight of a neighbor at a distance beyond the sum of radii, Å."""
    share = np.minimum(np.maximum((excess - SOFT) / (HARD - SOFT), 0.0), 1.0)
    return np.asarray((1 + np.cos(math.pi * share)) / 2)


def _bonded(weights: Floats) -> list[int]:
    """Return which neighbors belong to the most probable coordination number, by their weights in [0, 1]."""
    rounded = [round(weight, 3) for weight in weights.tolist()]
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
    return _radius(one) + _radius(other) + HARD


@cache
def _radius(symbol: str) -> float:
    """Return the covalent radius of CrystalNN, Å; the atomic one where there is none."""
    from pymatgen.core.molecule_structure_comparator import CovalentRadius

    known: float | None = CovalentRadius.radius.get(symbol)
    return (elements.get(symbol).atomic_radius or 0.0) if known is None else float(known)
