"""Which atoms are neighbours: what pymatgen's CrystalNN finds, an order of magnitude faster.

CrystalNN (Pan et al., Inorg. Chem. 60, 1590, 2021) takes the Voronoi cell of an atom among all atoms within a
radius, 7 Å, which is doubled while the cell is open. Each face f of the cell has a weight

    w_f = (omega_f / max omega) (omega_f / A_f) (1 + 3 sqrt(|dX| / 3.3)),      then over its maximum, times
    1 if d <= r + 0.5 Å, 0 if d >= r + 1 Å, (1 + cos(pi (d - r - 0.5) / 0.5)) / 2 between,

with the solid angle omega, the area A, the difference of electronegativities dX (left out where one is not
known), the distance d and the sum of covalent radii r. The weights, rounded to 0.001, part the neighbours
into shells; a coordination number is as likely as the area that its step takes of a quarter circle, and the
likeliest one is taken.

The cell is found by duality: the planes p . x = p . p / 2 between an atom and its neighbours at p bound the
polyhedron dual to the convex hull of the points 2 p / (p . p). It is made of the nearest atoms first. A
vertex at distance v from the atom cannot be cut off by atoms farther than 2 v: so it is known when the cell
is that of all atoms within the radius, and until then more are taken. Areas and solid angles are sums of
signed triangles over the edges of the hull, all at once: edges of no length, which crystals are full of, add
nothing.

Knows points, cells and elements; refuses to know what a reasonable bond is. Needs numpy, scipy and pymatgen's
table of covalent radii.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crystallm.crystallography import elements
from crystallm.errors import CrystallmError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.crystallography.space_groups import Floats, Ints


RADIUS = 7.0
"""Å around an atom in which CrystalNN looks first."""

FIRST = 40
"""Neighbours of which a Voronoi cell is made first; enough for nine cells of ten."""

SOFT, HARD = 0.5, 1.0
"""Å beyond the sum of covalent radii from which a neighbour counts less, and not at all."""

CONTRAST = 3.0
"""How much a difference of electronegativity counts for a neighbour; 3.3 is the largest difference."""

SAME = 1e-5
"""Difference of fractional coordinates up to which two atoms are on one point. Which of them others are
neighbours of is then a matter of order, and CrystalNN itself is asked."""

FEW = 50
"""Atoms of which each pair is compared."""

TOGETHER = 64
"""Atoms whose Voronoi cells are looked at together."""

_CORNERS = np.array([(1.0, 1.0, 1.0), (-1.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, -1.0)])


class _Cell(NamedTuple):
    """The Voronoi cell of an atom, dual to a hull of points."""

    points: Floats  # [n, 3] Å from the atom, by rising distance: those of the hull
    squares: Floats  # of the distances of these and more
    atoms: Ints  # whose images they all are
    hull: Any
    corners: Floats  # [n_simplices, 3] of the cell, Å


class NeighborFinder:
    """The atoms of a crystal and their images, to be asked for the neighbours of some of them.

    Args:
        vectors: [3, 3] of the cell (rows), Å.
        coords: [n_atoms, 3] fractions.
        symbols: an element for each atom.
    """

    def __init__(self, vectors: Floats, coords: Floats, symbols: Sequence[str]) -> None:
        self._vectors = np.asarray(vectors, dtype=np.float64)
        self._coords = np.asarray(coords, dtype=np.float64) % 1.0
        self._symbols = list(symbols)
        # How far the faces of the cell are apart, Å.
        self._spacings = [1.0 / math.hypot(*column) for column in np.linalg.inv(self._vectors).T.tolist()]
        corners = _CORNERS @ self._vectors
        self._longest = math.sqrt(float(np.einsum("ij,ij->i", corners, corners).max())) + 0.01
        kinds = list(dict.fromkeys(self._symbols))
        places = {symbol: place for place, symbol in enumerate(kinds)}
        self._kinds = np.array([places[symbol] for symbol in self._symbols])
        self._contrast = np.array([[_contrast(a, b) for b in kinds] for a in kinds])
        self._lengths = np.array([[_radius(a) + _radius(b) for b in kinds] for a in kinds])
        self._images: dict[float, tuple[Floats, Ints]] = {}
        self._doubled = _any_doubled(self._coords)

    def of(self, i: int) -> tuple[Ints, Floats]:
        """The neighbours of atom i; see `of_each`."""
        return self.of_each([i])[0]

    def of_each(self, atoms: Sequence[int]) -> list[tuple[Ints, Floats]]:
        """The neighbours of some atoms.

        Returns:
            For each of them indices of atoms [n], one for each image that is a neighbour, and the distance
            [n] between it and the nearest image of each, Å, which need not be the neighbour itself.

        Raises:
            CrystallmError: the Voronoi cell of an atom is open.
        """
        if self._doubled:
            return [self._asked(i) for i in atoms]
        found = []
        for start in range(0, len(atoms), TOGETHER):
            some = atoms[start : start + TOGETHER]
            found += self._told(some, [self._cell(i) for i in some])
        return found

    def _told(self, some: Sequence[int], cells: list[_Cell]) -> list[tuple[Ints, Floats]]:
        """What cells tell of the neighbours of their atoms; as `of_each`."""
        real, angles, areas = _faces(cells)
        ends = np.cumsum([len(cell.points) for cell in cells])
        whose = np.searchsorted(ends, real, side="right")  # [n_faces] which of the cells
        starts = np.searchsorted(whose, np.arange(len(cells)))
        atoms = np.concatenate([cell.atoms[: len(cell.points)] for cell in cells])[real]
        one, other = self._kinds[np.asarray(some)][whose], self._kinds[atoms]
        weights = angles / np.maximum.reduceat(angles, starts)[whose]
        weights = weights * (angles / areas) * self._contrast[one, other]
        lengths = np.sqrt(np.concatenate([cell.squares[: len(cell.points)] for cell in cells])[real])
        faded = _fading(lengths - self._lengths[one, other])
        weights = weights / np.maximum.reduceat(weights, starts)[whose] * faded
        found = []
        bounds = [*starts.tolist(), len(real)]
        for cell, first, behind in zip(cells, bounds, bounds[1:], strict=False):
            bonded = atoms[first:behind][_bonded(weights[first:behind])]
            everyone = cell.atoms.tolist()
            nearest = [everyone.index(j) for j in bonded.tolist()]  # the first image is the nearest
            found.append((bonded, np.sqrt(cell.squares[nearest])))
        return found

    def _cell(self, i: int) -> _Cell:
        """The Voronoi cell of atom i."""
        radius = RADIUS
        while True:
            cell = _cell(*self._around(i, radius), radius)
            if cell is not None:
                return cell
            if radius >= self._longest:
                raise CrystallmError(f"neighbours of site {i}: its Voronoi cell is open")
            radius = min(2 * radius, self._longest + 0.001)

    def _around(self, i: int, radius: float) -> tuple[Floats, Floats, Ints]:
        """Vectors from an atom to all others within a radius, Å, by rising length.

        Returns:
            The vectors [n, 3], the squares [n] of their lengths, and the atoms [n] to whose images they lead.
        """
        if radius not in self._images:
            # From anywhere in the cell, one cell more than the radius spans on either side.
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

    def _asked(self, i: int) -> tuple[Ints, Floats]:
        """What CrystalNN says of atom i; as `of`."""
        from pymatgen.core import Structure
        from pymatgen.core.local_env import CrystalNN

        structure = Structure(self._vectors, self._symbols, self._coords)
        try:
            info = CrystalNN().get_nn_info(structure, i)  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001 - Voronoi cells fail in many ways on odd crystals
            raise CrystallmError(f"neighbours of site {i}: {str(error)[:100]}") from None
        found = [neighbour["site_index"] for neighbour in info]
        if not found:
            return np.zeros(0, dtype=np.int64), np.zeros(0)
        lengths = structure.lattice.get_all_distances(self._coords[i], self._coords[found])[0]
        return np.array(found), np.asarray(lengths)


def _any_doubled(coords: Floats) -> bool:
    """Whether two of these points [n, 3], fractions, are one."""
    if len(coords) > FEW:
        from scipy.spatial import cKDTree  # type: ignore[import-untyped]

        # Modulo twice, for -1e-17 modulo 1 is 1.
        return bool(cKDTree(coords % 1.0, boxsize=1).query_pairs(SAME, p=np.inf))
    off = coords[:, None] - coords  # [n, n, 3]
    near = (np.abs(off - np.rint(off)) <= SAME).all(axis=2)
    return int(np.count_nonzero(near)) > len(coords)


@cache
def _shifts(*reach: int) -> Floats:
    """All shifts [n, 3] by no more than so many cells along each axis."""
    return np.array(list(product(*(range(-r, r + 1) for r in reach))), dtype=float)


def _cell(points: Floats, squares: Floats, atoms: Ints, radius: float) -> _Cell | None:
    """A Voronoi cell about the origin; None: it is open.

    Args:
        points: [n, 3] by rising distance, all that are within the radius.
        squares: [n] of those distances.
        atoms: [n] whose they are.
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
                    return _Cell(some, squares, atoms, hull, corners)
        if n == len(points):
            return None
        n = min(2 * n, len(points))


def _cross(a: Floats, b: Floats) -> Floats:
    """Cross products [3, n] of vectors that are columns."""
    return np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def _dot(a: Floats, b: Floats) -> Floats:
    """Products [n] of vectors that are columns [3, n]."""
    return np.asarray(np.einsum("ij,ij->j", a, b))


def _faces(cells: list[_Cell]) -> tuple[Ints, Floats, Floats]:
    """Faces of Voronoi cells.

    Returns:
        Which points [n] of all cells, one cell after the other, have a face; its solid angle [n], its area
        [n] (Å^2). Faces of no area are left out.
    """
    points = np.concatenate([cell.points for cell in cells]).T  # [3, n_points]
    corners = np.concatenate([cell.corners for cell in cells]).T  # [3, n_simplices]
    duals = np.concatenate([cell.hull.points for cell in cells]).T
    sides, neighbours, n_points, n_sides = [], [], 0, 0
    for cell in cells:
        sides.append(cell.hull.simplices + n_points)
        neighbours.append(cell.hull.neighbors + n_sides)
        n_points += len(cell.points)
        n_sides += len(cell.corners)
    simplices = np.concatenate(sides).T  # [3, n_simplices] points of each triangle
    a, b, c = (duals[:, simplices[k]] for k in range(3))
    turned = _dot(_cross(b - a, c - a), corners) < 0  # a corner lies where the normal of its triangle points
    # The edge opposite to point k of a triangle parts it from neighbours[k]; each is seen from both sides.
    here = np.tile(np.arange(n_sides), 3)
    there = np.concatenate(neighbours).T.ravel()
    once = here < there
    here, there = here[once], there[once]
    first = simplices[[1, 2, 0]].ravel()[once]
    second = simplices[[2, 0, 1]].ravel()[once]
    # Seen from outside, the corners of the face of `start` go round from `there` to `here` at this edge.
    start = np.where(turned[here], second, first)
    end = first + second - start
    face = np.concatenate([start, end])
    from_corner = np.concatenate([there, here])
    one, other = corners[:, from_corner], corners[:, np.concatenate([here, there])]
    foot = points[:, face] / 2  # of the plane: its point nearest to the atom
    height = np.sqrt(_dot(foot, foot))
    triple = _dot(foot, _cross(one, other))
    l1, l2 = np.sqrt(_dot(one, one)), np.sqrt(_dot(other, other))
    # Van Oosterom and Strackee, IEEE Trans. Biomed. Eng. 30, 125 (1983); foot . corner = height^2.
    below = height * (l1 * l2 + _dot(one, other) + height * (l1 + l2))
    angles = np.bincount(face, 2 * np.arctan2(triple, below), minlength=n_points)
    areas = np.bincount(face, triple / (2 * height), minlength=n_points)
    real: Ints = np.flatnonzero((angles > 1e-9) & (areas > 1e-9))
    return real, np.asarray(angles[real]), np.asarray(areas[real])


def _fading(excess: Floats) -> Floats:
    """Weight of a neighbour so many Å beyond the sum of radii."""
    share = np.minimum(np.maximum((excess - SOFT) / (HARD - SOFT), 0.0), 1.0)
    return np.asarray((1 + np.cos(math.pi * share)) / 2)


def _bonded(weights: Floats) -> list[int]:
    """Which neighbours belong to the likeliest coordination number, by their weights in [0, 1]."""
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
    """Share of the area of a quarter of the unit circle that lies below x, a whole number of thousandths."""
    return (x * math.sqrt(1 - x * x) + math.asin(x)) / (math.pi / 2)


@cache
def _contrast(one: str, other: str) -> float:
    """Factor of a pair of elements for their difference of electronegativity."""
    difference = abs(elements.get(one).electronegativity - elements.get(other).electronegativity)
    return 1.0 if math.isnan(difference) else 1.0 + CONTRAST * math.sqrt(difference / 3.3)


def reach(one: str, other: str) -> float:
    """Distance from which on two elements are no neighbours, Å."""
    return _radius(one) + _radius(other) + HARD


@cache
def _radius(symbol: str) -> float:
    """Covalent radius as CrystalNN has it, Å; the atomic one where there is none."""
    from pymatgen.core.molecule_structure_comparator import CovalentRadius

    known: float | None = CovalentRadius.radius.get(symbol)
    return (elements.get(symbol).atomic_radius or 0.0) if known is None else float(known)
