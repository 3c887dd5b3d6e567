"""The variables that a space group leaves free in a crystal: strains of its cell, displacements of its atoms.

    L(v) = L F,  F = I + sum_k v_k S_k / sqrt(n)            rows of L: vectors of the primitive cell, Å
    r(v) = (r + sum_j v_j U_j) F                            rows of r: positions of its n atoms, Å

S_k are orthonormal symmetric strains with S Q = Q S for each rotation Q of the group, U_j are orthonormal
displacements of one orbit each that every operation maps onto themselves. Any v therefore keeps the group and
all special positions. A variable is in Å; the factor of strains gives both kinds about the same stiffness.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm.errors import CrystallmError
from crystallm.geometry.symmetry_search import find_symmetry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.crystallography.space_groups import Floats, Ints

OWN_ANGLE_TOLERANCE = -1.0
"""Lets spglib derive its tolerance of angles from that of distances: a cell is then hardly moved."""


@dataclass(frozen=True, slots=True)
class FreeCoordinates:
    """A crystal as a function of its free variables.

    Attributes:
        lattice: vectors of the primitive cell at v = 0, Å, (3, 3).
        points: fractions of its atoms, (n, 3).
        strains: S, (n_strains, 3, 3).
        displacements: U, Å, (n_displacements, n, 3).
        atoms: index of each of its atoms in the given cell, (n,).
        equivalent: for each atom of the given cell the one of the primitive cell, (n_given,).
        given_points: fractions of the atoms of the given cell at v = 0, (n_given, 3).
        multiple: vectors of the given cell as multiples of those of the primitive one, (3, 3).
    """

    lattice: Floats
    points: Floats
    strains: Floats
    displacements: Floats
    atoms: Ints
    equivalent: Ints
    given_points: Floats
    multiple: Floats

    @property
    def n_variables(self) -> int:
        """Number of free variables."""
        return len(self.strains) + len(self.displacements)

    def primitive_cell(self, variables: Floats) -> tuple[Floats, Floats]:
        """Return vectors (3, 3), Å, and fractions (n, 3) of the primitive cell."""
        moved = np.tensordot(variables[len(self.strains) :], self.displacements, 1)
        return self.lattice @ self._deformation(variables), self.points + moved @ np.linalg.inv(self.lattice)

    def given_cell(self, variables: Floats) -> tuple[Floats, Floats]:
        """Return vectors (3, 3), Å, and fractions (n_given, 3) of the cell that was given, in its order."""
        lattice, points = self.primitive_cell(variables)
        moved = (points - self.points)[self.equivalent]
        return self.multiple @ lattice, self.given_points + moved @ np.linalg.inv(self.multiple)

    def gradient(self, variables: Floats, forces: Floats, stress: Floats) -> Floats:
        """Return the derivatives of the energy of the primitive cell by the variables, eV/Å.

        Args:
            forces: on its atoms, eV/Å, (n, 3).
            stress: (1/V) dE/de, eV/Å^3, (3, 3).
        """
        deformation = self._deformation(variables)
        volume = abs(np.linalg.det(self.lattice @ deformation))
        # E changes by V s:e under a further strain e, and dF = F e.
        by_deformation = volume * np.linalg.inv(deformation).T @ stress
        by_strains = np.tensordot(self.strains, by_deformation, 2) / np.sqrt(len(self.points))
        by_displacements = -np.tensordot(self.displacements, forces @ deformation.T, 2)
        return np.concatenate([by_strains, by_displacements])

    def project(self, forces: Floats, stress: Floats) -> tuple[Floats, Floats]:
        """Return the parts of forces and stress that the group allows."""
        on_atoms = np.tensordot(np.tensordot(self.displacements, forces, 2), self.displacements, 1)
        return on_atoms, np.tensordot(np.tensordot(self.strains, stress, 2), self.strains, 1)

    def largest_move(self, variables: Floats) -> tuple[float, float]:
        """Return the largest displacement, Å, and the largest component of the strain."""
        moved = np.tensordot(variables[len(self.strains) :], self.displacements, 1)
        strain = self._deformation(variables) - np.eye(3)
        return float(np.linalg.norm(moved, axis=1).max()), float(np.abs(strain).max())

    def _deformation(self, variables: Floats) -> Floats:
        strain = np.tensordot(variables[: len(self.strains)], self.strains, 1)
        return np.asarray(np.eye(3) + strain / np.sqrt(len(self.points)))


def unconstrained(lattice: Floats, points: Floats) -> FreeCoordinates:
    """Return all variables of a cell: six strains, and three displacements of each atom.

    Args:
        lattice: vectors as rows, Å, (3, 3).
        points: fractions, (n, 3).
    """
    n = len(points)
    displacements = np.eye(3 * n).reshape(3 * n, n, 3)
    own = np.arange(n)
    return FreeCoordinates(lattice, points, _all_strains(), displacements, own, own, points, np.eye(3))


def symmetric(
    lattice: Floats, points: Floats, kinds: Sequence[int] | Ints, symprec: float
) -> FreeCoordinates:
    """Return the variables that the space group of a crystal leaves free; it is made symmetric first.

    Args:
        lattice: vectors as rows, Å, (3, 3).
        points: fractions, (n, 3).
        kinds: an integer for each atom, equal for equal atoms.
        symprec: distance tolerance of the group, Å; atoms are moved less than that.

    Raises:
        CrystallmError: spglib finds no symmetry.
    """
    whole = _found(lattice, points, kinds, symprec)
    multiple = np.rint(lattice @ np.linalg.inv(whole.primitive_lattice))
    _, atoms, equivalent = np.unique(whole.mapping_to_primitive, return_index=True, return_inverse=True)
    lattice = np.linalg.inv(multiple) @ lattice
    kinds = np.asarray(kinds)[atoms]
    # The given cell may lack symmetry that the crystal has, such as a cube doubled along one edge.
    given = points @ multiple
    apart = given - given[atoms][equivalent]
    apart -= np.rint(apart)
    points = given[atoms].copy()
    np.add.at(points, equivalent, apart * (len(atoms) / len(given)))
    found = _found(lattice, points, kinds, symprec)
    rotations = np.asarray(found.rotations, dtype=np.float64)
    images, points = _permutations(lattice, points, kinds, rotations, found.translations)
    lattice = _invariant_lattice(lattice, rotations)
    # On positions as rows, Å: r -> r Q.
    turns = np.linalg.inv(lattice) @ rotations.transpose(0, 2, 1) @ lattice
    return FreeCoordinates(
        lattice,
        points,
        _invariant_strains(turns),
        _invariant_displacements(images, turns),
        atoms,
        equivalent,
        (points[equivalent] + np.rint(given - points[equivalent])) @ np.linalg.inv(multiple),
        multiple,
    )


def _found(lattice: Floats, points: Floats, kinds: Any, symprec: float) -> Any:
    found = find_symmetry(lattice, points, kinds, symprec, OWN_ANGLE_TOLERANCE)
    if found is None:
        raise CrystallmError("its symmetry cannot be kept: spglib finds none, perhaps atoms are too close")
    return found


def _permutations(
    lattice: Floats, points: Floats, kinds: Ints, rotations: Floats, translations: Floats
) -> tuple[Ints, Floats]:
    """Return onto which atom each operation maps each atom, (n_ops, n), and symmetric points (n, 3)."""
    images = np.empty((len(rotations), len(points)), dtype=np.int64)
    shift = np.zeros_like(points)
    different = kinds[:, None] != kinds[None]
    for row, (rotation, translation) in enumerate(zip(rotations, translations, strict=True)):
        apart = (points @ rotation.T + translation)[:, None] - points[None]  # (n, n, 3)
        apart -= np.rint(apart)
        distances = np.linalg.norm(apart @ lattice, axis=2) + np.where(different, np.inf, 0.0)
        images[row] = distances.argmin(axis=1)
        moved = apart[np.arange(len(points)), images[row]]
        # A translation is found only as exactly as the atoms lie; centered, the operations are a group.
        shift[images[row]] += moved - moved.mean(axis=0)
    return images, points + shift / len(rotations)


def _invariant_lattice(lattice: Floats, rotations: Floats) -> Floats:
    """Return the vectors with the mean metric tensor G of all images, W^T G W, without turning the cell."""
    metric = np.mean(rotations.transpose(0, 2, 1) @ (lattice @ lattice.T) @ rotations, axis=0)
    inverse = np.linalg.inv(lattice)
    values, vectors = np.linalg.eigh(inverse @ metric @ inverse.T)
    return np.asarray(lattice @ (vectors * np.sqrt(values)) @ vectors.T)


def _invariant_strains(turns: Floats) -> Floats:
    """Return orthonormal symmetric matrices S with Q^T S Q = S for all turns Q (n_ops, 3, 3)."""
    basis = _all_strains()
    turned = np.einsum("oji,sjk,okl->sil", turns, basis, turns) / len(turns)
    values, vectors = np.linalg.eigh(np.tensordot(basis, turned, axes=((1, 2), (1, 2))))
    return np.tensordot(vectors[:, values > 0.5].T, basis, 1)


def _invariant_displacements(images: Ints, turns: Floats) -> Floats:
    """Return orthonormal displacements that all operations map onto themselves, (n_displacements, n, 3).

    Args:
        images: atom onto which each operation maps each atom, (n_ops, n).
        turns: of displacements as rows, (n_ops, 3, 3).
    """
    n = images.shape[1]
    found: list[Floats] = []
    seen: set[int] = set()
    for atom in range(n):
        if atom in seen:
            continue
        orbit = set(images[:, atom].tolist())
        seen |= orbit
        values, vectors = np.linalg.eigh(turns[images[:, atom] == atom].mean(axis=0))
        for vector in vectors[:, values > 0.5].T:
            displacement = np.zeros((n, 3))
            displacement[images[:, atom]] = vector @ turns
            found.append(displacement / np.sqrt(len(orbit)))
    return np.array(found).reshape(-1, n, 3)


def _all_strains() -> Floats:
    """Return an orthonormal basis of symmetric matrices, (6, 3, 3)."""
    basis = np.zeros((6, 3, 3))
    for row, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        basis[row, i, j] = basis[row, j, i] = 1.0 if i == j else np.sqrt(0.5)
    return basis
