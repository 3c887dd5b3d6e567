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
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm import elements
from crystallm.errors import CrystallmError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

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


class Surroundings:
    """The atoms of a crystal and their images, to be asked for the neighbours of one after the other.

    Args:
        vectors: [3, 3] of the cell (rows), Å.
        coords: [n_atoms, 3] fractions.
        symbols: an element for each atom.
    """

    def __init__(self, vectors: Floats, coords: Floats, symbols: Sequence[str]) -> None:
        from scipy.spatial import cKDTree  # type: ignore[import-untyped]

        self._vectors = np.asarray(vectors, dtype=np.float64)
        self._coords = np.asarray(coords, dtype=np.float64) % 1.0
        self._symbols = list(symbols)
        # How far the faces of the cell are apart, Å.
        self._spacings = 1.0 / np.linalg.norm(np.linalg.inv(self._vectors), axis=0)
        corners = np.array([(1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1)]) @ self._vectors
        self._longest = float(np.linalg.norm(corners, axis=1).max()) + 0.01
        kinds = list(dict.fromkeys(self._symbols))
        self._kinds = np.array([kinds.index(symbol) for symbol in self._symbols])
        self._contrast = np.array([[_contrast(a, b) for b in kinds] for a in kinds])
        self._lengths = np.array([[_radius(a) + _radius(b) for b in kinds] for a in kinds])
        self._images: dict[float, tuple[Floats, Ints]] = {}
        # Modulo twice, for -1e-17 modulo 1 is 1.
        self._doubled = bool(cKDTree(self._coords % 1.0, boxsize=1).query_pairs(SAME, p=np.inf))

    def of(self, i: int) -> tuple[Ints, Floats]:
        """The neighbours of atom i.

        Returns:
            Indices of atoms [n], one for each image that is a neighbour, and the distance [n] between atom i
            and the nearest image of each, Å, which need not be the neighbour itself.

        Raises:
            CrystallmError: the atom's Voronoi cell is open.
        """
        if self._doubled:
            return self._asked(i)
        radius = RADIUS
        while True:
            points, atoms = self._around(i, radius)  # sorted by distance, [n, 3] Å and [n]
            cell = _cell(points, radius)
            if cell is not None:
                break
            if radius >= self._longest:
                raise CrystallmError(f"neighbours of site {i}: its Voronoi cell is open")
            radius = min(2 * radius, self._longest + 0.001)
        faces, angles, areas = cell
        kinds = self._kinds[atoms[faces]]
        weights = angles / angles.max() * (angles / areas) * self._contrast[self._kinds[i], kinds]
        excess = np.linalg.norm(points[faces], axis=1) - self._lengths[self._kinds[i], kinds]
        weights = weights / weights.max() * _fading(excess)
        found = np.asarray(atoms[faces[_bonded(weights)]], dtype=np.int64)
        nearest = (atoms[None] == found[:, None]).argmax(axis=1)  # the first image is the nearest
        return found, np.asarray(np.linalg.norm(points[nearest], axis=1))

    def _around(self, i: int, radius: float) -> tuple[Floats, Ints]:
        """Vectors from an atom to all others within a radius, Å, by rising length; and whose they are."""
        if radius not in self._images:
            # From anywhere in the cell, one cell more than the radius spans on either side.
            reach = np.ceil(radius / self._spacings).astype(int)
            shifts = np.array(list(product(*(range(-r, r + 1) for r in reach.tolist()))), dtype=float)
            images = (self._coords[None] + shifts[:, None]) @ self._vectors  # [n_shifts, n_atoms, 3]
            self._images[radius] = (
                images.reshape(-1, 3),
                np.tile(np.arange(len(self._coords)), len(shifts)),
            )
        images, atoms = self._images[radius]
        off = images - self._coords[i] @ self._vectors
        squares = np.einsum("ij,ij->i", off, off)
        near = np.flatnonzero(squares <= radius * radius)
        near = near[np.argsort(squares[near], kind="stable")][1:]  # the first is the atom itself
        return off[near], atoms[near]

    def _asked(self, i: int) -> tuple[Ints, Floats]:
        """What CrystalNN says of atom i; as `of`."""
        from pymatgen.analysis.local_env import CrystalNN
        from pymatgen.core import Structure

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


def _cell(points: Floats, radius: float) -> tuple[Ints, Floats, Floats] | None:
    """The faces of a Voronoi cell about the origin: which points, solid angles [n], areas [n] (Å^2).

    Args:
        points: [n, 3] by rising distance, all that are within the radius.
        radius: Å.

    Returns:
        Faces of no area are left out. None: the cell is open.
    """
    from scipy.spatial import ConvexHull, QhullError

    n = min(FIRST, len(points))
    while True:
        some = points[:n]
        squares = np.einsum("ij,ij->i", some, some)
        try:
            hull = ConvexHull(some * (2.0 / squares)[:, None])
        except (QhullError, ValueError):  # fewer than four points, or all in a plane
            hull = None
        if hull is not None:
            offsets = hull.equations[:, 3]
            if (offsets < -1e-9).all():
                corners = hull.equations[:, :3] / -offsets[:, None]  # [n_simplices, 3] of the cell, Å
                farthest = float(np.linalg.norm(corners, axis=1).max())
                next_one = float(np.linalg.norm(points[n])) if n < len(points) else radius
                if n == len(points) or 2 * farthest <= next_one:
                    return _faces(some, hull, corners)
        if n == len(points):
            return None
        n = min(2 * n, len(points))


def _faces(points: Floats, hull: Any, corners: Floats) -> tuple[Ints, Floats, Floats]:
    """Faces of the polyhedron dual to a hull; as `_cell`."""
    simplices = hull.simplices.copy()  # [n, 3] points of each triangle
    a, b, c = (hull.points[simplices[:, k]] for k in range(3))
    turned = np.einsum("ij,ij->i", np.cross(b - a, c - a), hull.equations[:, :3]) < 0
    # The edge opposite to point k of a triangle parts it from neighbours[:, k].
    starts, ends, here, there = [], [], [], []
    for k in range(3):
        first, second = simplices[:, (k + 1) % 3], simplices[:, (k + 2) % 3]
        starts.append(np.where(turned, second, first))
        ends.append(np.where(turned, first, second))
        here.append(np.arange(len(simplices)))
        there.append(hull.neighbors[:, k])
    start, end = np.concatenate(starts), np.concatenate(ends)
    one, other = np.concatenate(here), np.concatenate(there)
    once = one < other  # each edge is seen from both sides
    start, end, one, other = start[once], end[once], one[once], other[once]
    # Seen from outside, the corners of the face of `start` go round from `other` to `one` at this edge.
    face = np.concatenate([start, end])
    first, second = corners[np.concatenate([other, one])], corners[np.concatenate([one, other])]
    foot = points[face] / 2  # of the plane: its point nearest to the atom
    height = np.linalg.norm(foot, axis=1)
    triple = np.einsum("ij,ij->i", foot, np.cross(first, second))
    l1, l2 = np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)
    # Van Oosterom and Strackee, IEEE Trans. Biomed. Eng. 30, 125 (1983); foot . corner = height^2.
    below = height * l1 * l2 + height * np.einsum("ij,ij->i", first, second) + height**2 * (l1 + l2)
    angles = np.bincount(face, 2 * np.arctan2(triple, below), minlength=len(points))
    areas = np.bincount(face, triple / (2 * height), minlength=len(points))
    real: Ints = np.flatnonzero((angles > 1e-9) & (areas > 1e-9))
    return real, np.asarray(angles[real]), np.asarray(areas[real])


def _fading(excess: Floats) -> Floats:
    """Weight of a neighbour so many Å beyond the sum of radii."""
    share = np.clip((excess - SOFT) / (HARD - SOFT), 0.0, 1.0)
    return np.asarray((1 + np.cos(math.pi * share)) / 2)


def _bonded(weights: Floats) -> Ints:
    """Which neighbours belong to the likeliest coordination number, by their weights in [0, 1]."""
    rounded = np.array([round(w, 3) for w in weights.tolist()])
    steps = np.unique(rounded[rounded > 0])[::-1]  # falling
    if not len(steps):
        return np.zeros(0, dtype=np.int64)
    areas = _circle(np.append(steps, 0.0))
    shares = areas[:-1] - areas[1:]
    best = int(shares.argmax())
    if 1.0 - math.fsum(shares.tolist()) > shares[best]:
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(rounded >= steps[best])


def _circle(x: Floats) -> Floats:
    """Share of the area of a quarter of the unit circle that lies below x."""
    return np.asarray((x * np.sqrt(1 - x * x) + np.arcsin(x)) / (math.pi / 2))


@cache
def _contrast(one: str, other: str) -> float:
    """Factor of a pair of elements for their difference of electronegativity."""
    difference = abs(elements.get(one).electronegativity - elements.get(other).electronegativity)
    return 1.0 if math.isnan(difference) else 1.0 + CONTRAST * math.sqrt(difference / 3.3)


@cache
def _radius(symbol: str) -> float:
    """Covalent radius as CrystalNN has it, Å; the atomic one where there is none."""
    from pymatgen.core.molecule_structure_comparator import CovalentRadius

    known: float | None = CovalentRadius.radius.get(symbol)
    return (elements.get(symbol).atomic_radius or 0.0) if known is None else float(known)
