"""Make `src/crystallm/crystallography/data/spacegroups.json.gz`: operators, Wyckoff positions, normalisers.

Operators come from spglib (the Hall setting with the smallest serial number of each type, which is the one
that spglib standardises to). Wyckoff letters and representatives come from PyXtal's copy of the International
Tables (origin choice 2 where there are two) and are shifted to spglib's origin here. Run once, by hand:

    pip install spglib pyxtal && python scripts/make_spacegroups.py

The result is checked against spglib in `tests/test_spacegroups.py`.
"""

from __future__ import annotations

import ast
import csv
import gzip
import itertools
import json
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import spglib

DENOMINATOR = 24  # every translation of every tabulated setting is a multiple of 1/24
OUT = Path(__file__).parent.parent / "src/crystallm/crystallography/data/spacegroups.json.gz"

Matrix = Any


def settings(number: int) -> list[tuple[int, str]]:
    """Hall serial numbers of a group and the setting choice that each stands for."""
    found = []
    for hall in range(1, 531):
        kind = spglib.get_spacegroup_type(hall)
        if kind.number == number:
            found.append((hall, kind.choice))
    return found


def operations(hall: int) -> list[tuple[Matrix, Matrix]]:
    """Rotations and translations (in 24ths, modulo the lattice) of a Hall setting."""
    table = spglib.get_symmetry_from_database(hall)
    shifts = np.rint(np.asarray(table["translations"]) * DENOMINATOR).astype(int) % DENOMINATOR
    return [(np.asarray(r, dtype=int), t) for r, t in zip(table["rotations"], shifts, strict=True)]


def as_set(ops: list[tuple[Matrix, Matrix]]) -> set[tuple[int, ...]]:
    """Operators as a set that can be compared."""
    return {(*r.ravel().tolist(), *(t % DENOMINATOR).tolist()) for r, t in ops}


def conjugate(ops: list[tuple[Matrix, Matrix]], w: Matrix, s: Matrix) -> list[tuple[Matrix, Matrix]]:
    """(w, s) g (w, s)^-1 for every g = (r, t): rotation w r w^-1, translation s + w t - w r w^-1 s."""
    inverse = np.rint(np.linalg.inv(w)).astype(int)
    result = []
    for r, t in ops:
        rotated = w @ r @ inverse
        result.append((rotated, (s + w @ t - rotated @ s) % DENOMINATOR))
    return result


def parse_expression(text: str) -> tuple[Matrix, list[Fraction]]:
    """'x, 2x+1/4, -z' -> matrix [3, 3] and offsets."""
    matrix = np.zeros((3, 3), dtype=int)
    offset = [Fraction(0)] * 3
    for row, part in enumerate(text.split(",")):
        term = part.strip().replace("-", "+-")
        for piece in filter(None, term.split("+")):
            if piece[-1] in "xyz":
                factor = piece[:-1].rstrip("*")
                matrix[row, "xyz".index(piece[-1])] += {"": 1, "-": -1}.get(factor) or int(factor)
            else:
                offset[row] += Fraction(piece)
    return matrix, offset


def normalise(matrix: Matrix, offset: Matrix) -> tuple[Matrix, Matrix]:
    """The same affine subspace with one coordinate equal to each free parameter and no offset there."""
    free = [axis for axis in range(3) if matrix[:, axis].any()]
    matrix, offset = matrix.copy(), offset.copy()
    for axis in free:
        # a coordinate that this parameter alone moves, by +-1: then the parameter may absorb its offset
        rows = [i for i in range(3) if abs(matrix[i, axis]) == 1 and np.count_nonzero(matrix[i]) == 1]
        row = axis if axis in rows else rows[0]
        if matrix[row, axis] < 0:
            matrix[:, axis] *= -1
        offset -= matrix[:, axis] * offset[row]
    return matrix, offset % DENOMINATOR


def cell_of(number: int) -> Matrix:
    """A generic conventional cell [3, 3] of a group's crystal system, vectors in rows."""
    a, b, c = (1.0, 1.3, 1.7)
    beta = 100.0 if number < 16 else 90.0
    gamma = 120.0 if 143 <= number < 195 else 90.0
    if number >= 75:
        b = a
    if number >= 195:
        c = a
    cell = np.array(
        [
            [a * np.sin(np.radians(beta)), 0, a * np.cos(np.radians(beta))],
            [b * np.cos(np.radians(gamma)), b * np.sin(np.radians(gamma)), 0],
            [0, 0, c],
        ]
    )
    if number < 3:
        cell[1] += [0.21, 0.0, 0.13]
    return 10 * cell


def lattice_rotations(number: int) -> list[Matrix]:
    """Proper rotations of the holohedry of the group's lattice, in the basis of its conventional cell."""
    if number < 3:
        return [np.eye(3, dtype=int)]
    metric = cell_of(number) @ cell_of(number).T
    found = []
    for flat in itertools.product((-1, 0, 1), repeat=9):
        w = np.array(flat).reshape(3, 3)
        if round(np.linalg.det(w)) == 1 and np.allclose(w.T @ metric @ w, metric, atol=1e-6):
            found.append(w)
    return found


def polar_axes(ops: list[tuple[Matrix, Matrix]]) -> list[int]:
    """Axes along which the origin is free (0, 1, 2); in the standard settings each is a cell axis."""
    axes = [i for i in range(3) if all((r[:, i] == np.eye(3, dtype=int)[:, i]).all() for r, _ in ops)]
    if np.linalg.matrix_rank(sum(r for r, _ in ops)) != len(axes):
        raise AssertionError(axes)
    return axes


def codes(rotations: Matrix, shifts: Matrix) -> Matrix:
    """One integer for each operator (rotation entries are -1, 0, 1; shifts are 24ths)."""
    digits = np.concatenate([rotations.reshape(-1, 9) + 1, shifts], axis=1).astype(np.int64)  # 24**12 < 2**63
    result = np.zeros(len(digits), dtype=np.int64)
    for column in digits.T:
        result = result * DENOMINATOR + column
    return result


def normaliser(ops: list[tuple[Matrix, Matrix]], rotations: list[Matrix]) -> list[tuple[Matrix, Matrix]]:
    """Coset representatives of a group in the proper part of its Euclidean normaliser, no polar shifts.

    Only rotations (determinant +1) are taken, so that handedness survives. Translations are searched among
    multiples of 1/12, which hold every tabulated normaliser; along polar axes they are 0, since there any
    shift is allowed.
    """
    r_all = np.array([r for r, _ in ops])
    t_all = np.array([t for _, t in ops])
    target = np.unique(codes(r_all, t_all))
    polar = polar_axes(ops)
    steps = [range(0, DENOMINATOR, 2) if i not in polar else range(1) for i in range(3)]
    found: list[tuple[Matrix, Matrix]] = []
    seen: set[tuple[int, ...]] = set()
    for w in rotations:
        rotated = w @ r_all @ np.rint(np.linalg.inv(w)).astype(int)
        if {*map(bytes, rotated)} != {*map(bytes, r_all)}:
            continue
        for step in itertools.product(*steps):
            s = np.array(step)
            if (*w.ravel().tolist(), *step) in seen:
                continue
            shifts = (s + t_all @ w.T - rotated @ s) % DENOMINATOR
            if not np.isin(codes(rotated, shifts), target).all():
                continue
            found.append((w, s))
            for r, t in ops:  # the whole coset g (w, s)
                coset_shift = (r @ s + t) % DENOMINATOR
                coset_shift[polar] = 0
                seen.add((*(r @ w).ravel().tolist(), *coset_shift.tolist()))
    return found


def positions_after(
    rows: list[list[str]], ops: list[tuple[Matrix, Matrix]], shift: Matrix
) -> list[dict[str, Any]]:
    """Wyckoff positions, 'a' first, moved by an origin shift (24ths)."""
    wyckoff = []
    for letter, row in zip("abcdefghijklmnopqrstuvwxyzA", rows, strict=False):
        matrix, fractions = parse_expression(row[0])
        offset = np.array([int(f * DENOMINATOR) for f in fractions]) + shift
        matrix, offset = normalise(matrix, offset)
        multiplicity = len(orbit(ops, matrix, offset, (0.1234, 0.2871, 0.3917)))
        if multiplicity != len(row):
            raise AssertionError((letter, multiplicity, len(row)))
        flat = {"matrix": matrix.ravel().tolist(), "offset": offset.tolist()}
        wyckoff.append({"letter": letter, "multiplicity": multiplicity, **flat})
    return wyckoff


def orbit(
    ops: list[tuple[Matrix, Matrix]], matrix: Matrix, offset: Matrix, values: tuple[float, ...]
) -> Matrix:
    """Distinct images of a point of a Wyckoff position."""
    point = matrix @ np.array(values) + offset / DENOMINATOR
    return np.array(sorted({tuple(np.round((r @ point + t / DENOMINATOR) % 1, 6) % 1) for r, t in ops}))


def letter_maps(
    ops: list[tuple[Matrix, Matrix]], wyckoff: list[dict[str, Any]], cosets: list[tuple[Matrix, Matrix]]
) -> list[list[int]]:
    """For each coset of the normaliser, the index of the position that each Wyckoff position becomes."""
    orbits = []
    for row in wyckoff:
        matrix, offset = np.array(row["matrix"]).reshape(3, 3), np.array(row["offset"])
        point = matrix @ np.array((0.1234, 0.2871, 0.3917)) + offset / DENOMINATOR
        orbits.append((row["multiplicity"], matrix, offset / DENOMINATOR, point))
    maps = []
    for w, s in cosets:
        moved = [(n, w @ point + s / DENOMINATOR) for n, _, _, point in orbits]
        images = [(n, np.array([r @ point + t / DENOMINATOR for r, t in ops])) for n, point in moved]
        maps.append(
            [
                next(
                    j
                    for j, (multiplicity, matrix, offset, _) in enumerate(orbits)
                    if multiplicity == n and on_position(points, matrix, offset)
                )
                for n, points in images
            ]
        )
    return maps


def on_position(points: Matrix, matrix: Matrix, offset: Matrix) -> bool:
    """Whether one of these points [n, 3] lies on a Wyckoff position, modulo lattice vectors."""
    free = [axis for axis in range(3) if matrix[:, axis].any()]
    pivots = [
        next(i for i in (axis, 0, 1, 2) if matrix[i, axis] == 1 and np.count_nonzero(matrix[i]) == 1)
        for axis in free
    ]
    values = np.zeros_like(points)
    values[:, free] = points[:, pivots]
    apart = points - values @ matrix.T - offset
    return bool((np.abs(apart - np.rint(apart)).max(axis=1) < 1e-6).any())


def letters_agree(number: int, ops: list[tuple[Matrix, Matrix]], wyckoff: list[dict[str, Any]]) -> bool:
    """Whether spglib, given a crystal in its own setting, calls every position by our letter."""
    general = orbit(ops, np.eye(3, dtype=int), np.zeros(3, dtype=int), (0.0717, 0.1923, 0.3371))
    for row in wyckoff[:-1]:
        special = orbit(
            ops, np.array(row["matrix"]).reshape(3, 3), np.array(row["offset"]), (0.1234, 0.2871, 0.3917)
        )
        cell: Any = (cell_of(number), np.vstack([general, special]), [1] * len(general) + [2] * len(special))
        found = spglib.get_symmetry_dataset(cell, symprec=1e-4)
        if found.number != number:
            raise AssertionError((number, row))
        identity = np.allclose(found.transformation_matrix, np.eye(3)) and np.allclose(found.origin_shift, 0)
        if identity and found.wyckoffs[-1].replace("α", "A") != row["letter"]:
            return False
    return True


def main() -> None:
    """Make the table."""
    database = files("pyxtal") / "database"
    with (database / "wyckoff_list.csv").open() as handle:
        positions = {
            int(r[0]): ast.literal_eval(r[1]) for r in csv.reader(handle) if r[0] and r[1].startswith("[")
        }
    table = {}
    for number in range(1, 231):
        choices = settings(number)
        hall = choices[0][0]
        ops = operations(hall)
        shifts = [np.zeros(3, dtype=int)]
        if choices[0][1] == "1" and any(choice == "2" for _, choice in choices):
            second = operations(next(h for h, choice in choices if choice == "2"))
            shifts = [
                np.array(s)
                for s in itertools.product(range(0, DENOMINATOR, 3), repeat=3)
                if as_set(conjugate(second, np.eye(3, dtype=int), np.array(s))) == as_set(ops)
            ]
        # Several shifts give the same operators but permute the letters: spglib's letters decide.
        wyckoff = next(
            w
            for w in (positions_after(positions[number][::-1], ops, s) for s in shifts)
            if letters_agree(number, ops, w)
        )
        cosets = normaliser(ops, lattice_rotations(number))
        table[number] = {
            "symbol": spglib.get_spacegroup_type(hall).international_short,
            "hall": hall,
            "operations": [[*r.ravel().tolist(), *t.tolist()] for r, t in ops],
            "wyckoff": wyckoff,
            "normaliser": [[*w.ravel().tolist(), *s.tolist()] for w, s in cosets],
            "letter_maps": letter_maps(ops, wyckoff, cosets),
            "polar": polar_axes(ops),
        }
        print(number, table[number]["symbol"], len(ops), len(wyckoff), len(cosets), table[number]["polar"])
    payload = json.dumps(table, separators=(",", ":")).encode()
    OUT.write_bytes(gzip.compress(payload, 9, mtime=0))
    print(OUT, OUT.stat().st_size)


if __name__ == "__main__":
    main()
