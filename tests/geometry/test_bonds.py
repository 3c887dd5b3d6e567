"""Bonds: those of all atoms from one of each orbit, and implausible ones."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pymatgen.core import Lattice, Structure

from crystallm.cif import block, printed_crystal
from crystallm.errors import CrystallmError
from crystallm.geometry import bonds

GOLDEN = Path(__file__).parents[1] / "golden" / "validity.jsonl.gz"

CASES: list[dict[str, Any]] = [
    json.loads(line) for line in gzip.decompress(GOLDEN.read_bytes()).decode().splitlines()
]

Row = tuple[str, int, Any, Any, Any]


def text_of(cell: tuple[object, ...], rows: list[Row], group: str = "P1") -> str:
    """A text that is consistent in all that is printed, of any cell and rows."""
    counts: Counter[str] = Counter()
    for symbol, multiplicity, *_ in rows:
        counts[symbol] += multiplicity
    formula = "".join(f"{symbol}{count}" for symbol, count in counts.items())
    names = [f"_cell_length_{x}" for x in "abc"] + [f"_cell_angle_{x}" for x in ("alpha", "beta", "gamma")]
    atom = ["type_symbol", "label", "symmetry_multiplicity", "fract_x", "fract_y", "fract_z", "occupancy"]
    return "\n".join(
        [
            f"data_{formula}",
            f"_symmetry_space_group_name_H-M {group}",
            *(f"{name} {value}" for name, value in zip(names, cell, strict=True)),
            f"_chemical_formula_structural {formula}",
            f"_chemical_formula_sum '{formula}'",
            *("loop_", "_symmetry_equiv_pos_site_id", "_symmetry_equiv_pos_as_xyz", "1 'x, y, z'", "loop_"),
            *(f"_atom_site_{name}" for name in atom),
            *(f"{s} {s}{i} {m} {x} {y} {z} 1.0" for i, (s, m, x, y, z) in enumerate(rows)),
            "",
            "",
        ]
    )


ROCKSALT = text_of(
    (5.64, 5.64, 5.64, 90, 90, 90), [("Na", 4, 0.0, 0.0, 0.0), ("Cl", 4, 0.5, 0.5, 0.5)], "Fm-3m"
)


def test_only_true_symmetries_share_their_neighbours() -> None:
    # Under the operators of Fm-3m, rock salt has two kinds of atoms; sheared, they are no symmetries.
    cell = printed_crystal.cell(block.read(ROCKSALT))
    salt, operators = Structure(cell.vectors, cell.symbols, cell.coords), cell.operators
    symbols = [site.specie.symbol for site in salt]
    cubic = list(bonds.orbits(salt.lattice.matrix, salt.frac_coords, symbols, operators))
    assert sorted(size for _, size in cubic) == [4, 4]
    sheared = Lattice.from_parameters(5.64, 5.7, 5.8, 85, 88, 93).matrix
    alone = list(bonds.orbits(sheared, salt.frac_coords, symbols, operators))
    # What stays are the centring translations and the inversion, which carry no Na onto Cl.
    assert sorted(size for _, size in alone) == [4, 4]
    moved = salt.frac_coords.copy()
    moved[0] += (0.01, 0.02, 0.005)
    assert {size for _, size in bonds.orbits(salt.lattice.matrix, moved, symbols, operators)} == {1}


def test_orbits_are_the_same_whether_all_pairs_are_compared_or_a_tree_is_searched(monkeypatch) -> None:
    for case in CASES[:40]:
        try:
            cell = printed_crystal.cell(block.read(case["text"]))
        except CrystallmError:
            continue
        crystal = cell.vectors, cell.coords, cell.symbols, cell.operators
        found = []
        for few in (0, 10**9):
            monkeypatch.setattr(bonds, "FEW_IMAGES", few)
            found.append(list(bonds.orbits(*crystal)))
        assert found[0] == found[1]


def test_one_atom_an_orbit_gives_the_score_of_all_atoms() -> None:
    for case in CASES[2:60:9]:
        try:
            cell = printed_crystal.cell(block.read(case["text"]))
            crystal = cell.vectors, cell.coords, cell.symbols
            score = bonds.score(*crystal)
        except CrystallmError:
            continue
        assert bonds.score(*crystal, bonds.orbits(*crystal, cell.operators)) == pytest.approx(
            score, abs=1e-12
        )


def test_odd_bonds_are_seen_without_asking_for_all_bonds() -> None:
    found = Counter()
    for case in CASES[2::5]:
        for scale in (0.75, 0.9, 1.0, 1.1, 1.3):
            try:
                cell = printed_crystal.cell(block.read(case["text"]))
                crystal = scale * cell.vectors, cell.coords, cell.symbols
                score = bonds.score(*crystal)
            except CrystallmError:
                continue
            odd = bool(bonds.implausible(*crystal, range(len(cell.symbols))))
            assert odd == (score < 1)
            found[odd] += 1
    assert min(found[True], found[False]) > 20
