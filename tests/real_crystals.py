"""Crystals that several tests share: 500 real ones, and random ones of every space group."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Lattice, Structure

from crystallm.cif import writer
from crystallm.crystallography import space_groups


@cache
def published() -> list[dict[str, Any]]:
    """500 real structures, their standard texts and ids, made with the original code."""
    with gzip.open(Path(__file__).parent / "golden" / "texts.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@cache
def structures() -> list[Structure]:
    return [Structure.from_str(row["cif"], fmt="cif") for row in published()]


def random_crystal(number: int, seed: int, *, on_grid: bool = False) -> Structure:
    """A crystal of exactly that space group: one to three orbits on Wyckoff positions drawn by chance.

    Args:
        number: of the space group.
        seed: of the draw.
        on_grid: whether coordinates are thousandths, lengths hundredths of an Å and angles tenths.
    """
    import spglib

    rng = np.random.default_rng([seed, number])
    group = space_groups.get(number)
    for attempt in range(1000):
        n_orbits = int(rng.integers(1, 4))
        positions = [group.wyckoff[int(i)] for i in rng.integers(len(group.wyckoff), size=n_orbits)]
        species = rng.choice(["Na", "Ti", "Sr", "Fe", "Se", "S"], size=n_orbits, replace=False).tolist()
        n_atoms = sum(position.multiplicity for position in positions)
        fixed = [position.letter for position in positions if not position.free]
        if n_atoms > 24 + attempt or len(set(fixed)) < len(fixed):
            continue
        size = (20.0 * n_atoms) ** (1 / 3)  # 20 Å^3 an atom
        free = {
            name: float(rng.uniform(0.7, 1.5) * size if len(name) == 1 else rng.uniform(75, 105))
            for name in group.free_cell
        }
        values = [rng.uniform(size=len(position.free)) for position in positions]
        if on_grid:
            free = {name: round(value, 2 if len(name) == 1 else 1) for name, value in free.items()}
            values = [np.round(point, 3) for point in values]
        orbits = [group.orbit(w.point(point.tolist())) for w, point in zip(positions, values, strict=True)]
        names = [name for name, orbit in zip(species, orbits, strict=True) for _ in orbit]
        crystal = Structure(Lattice.from_parameters(*group.complete_cell(free)), names, np.vstack(orbits))
        distances = crystal.distance_matrix + 9 * np.eye(len(crystal))
        if distances.min() < 0.8:
            continue
        cell: Any = (crystal.lattice.matrix, crystal.frac_coords, crystal.atomic_numbers)
        found = spglib.get_symmetry_dataset(cell, 0.1, 5.0)
        if found is not None and found.number == number:
            return crystal
    raise AssertionError(f"no crystal of group {number} by chance")


def told_otherwise(crystal: Structure, rng: np.random.Generator, cell: list[list[int]]) -> Structure:
    """The same crystal: turned, from another origin, its atoms in another order, in another cell.

    Args:
        crystal: any.
        rng: of turn, origin and order.
        cell: [3, 3] the new cell vectors as sums of the old; a supercell where its determinant is not 1, a
            left-handed one where it is negative.
    """
    told = crystal.make_supercell(cell, in_place=False, to_unit_cell=False)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)  # no mirror
    order, species = rng.permutation(len(told)), told.species
    return Structure(
        told.lattice.matrix @ turn.T,
        [species[i] for i in order],
        told.frac_coords[order] + rng.random(3),
    )


def write_split(folder: Path, split: str, streams: Any) -> None:
    """Write texts as a split of a data set folder, which is made."""
    from crystallm.datasets import shards

    folder.mkdir(parents=True, exist_ok=True)
    with shards.SplitWriter(folder, split) as writer:
        for ids in streams:
            writer.add(np.asarray(ids, dtype="<u2").tobytes())


def write_prompts(folder: Path, **splits: Any) -> None:
    """Write a data set in orbits whose crystals are prompts: compositions of each split, in P1."""
    from crystallm.orbits import language
    from crystallm.storage.run_folder import FACTS

    for split, compositions in splits.items():
        write_split(folder, split, [language.prompt(counts.items(), 1) for counts in compositions])
    (folder / FACTS).write_text(json.dumps({"language": "orbits", "vocab_size": 1410, "crystals": {}}))


@cache
def rutile_text() -> str:
    """TiO2 with the cell and oxygen of Baur and Khan, Acta Cryst. B27, 2133 (1971)."""
    species = ["Ti"] * 2 + ["O"] * 4
    x = 0.3048
    points = [
        [0.0, 0.0, 0.0],
        [0.5, 0.5, 0.5],
        [x, x, 0.0],
        [-x, -x, 0.0],
        [0.5 - x, 0.5 + x, 0.5],
        [0.5 + x, 0.5 - x, 0.5],
    ]
    return writer.to_text(Structure(Lattice.tetragonal(4.5937, 2.9587), species, points))
