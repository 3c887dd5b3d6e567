"""Files of awkward kinds, what is in them (`reading/expected.csv`), and what a structure shows of that."""

from __future__ import annotations

import csv
import math
from collections import Counter
from functools import cache, reduce
from pathlib import Path

import numpy as np
import spglib

FOLDER = Path(__file__).with_name("reading")


@cache
def cases():
    """Rows of the table by file, in its order."""
    found = {}
    with (FOLDER / "expected.csv").open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            found.setdefault(row["file"], []).append(row)
    return found


@cache
def formulas():
    """Rows of the table of formulas."""
    with (FOLDER / "formulas.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def reduced(counts):
    units = reduce(math.gcd, counts.values())
    return {symbol: count // units for symbol, count in counts.items()}


def counts_of(text):
    from crystallm.crystallography import formula

    return formula.parse(text)


def differences(structure, row):
    """What a structure has otherwise than a row of the table says."""
    wrong = []
    symbols = [site.specie.symbol for site in structure]
    if reduced(Counter(symbols)) != reduced(counts_of(row["reduced_formula"])):
        wrong.append(f"formula {structure.formula}")
    kinds = [sorted(set(symbols)).index(symbol) for symbol in symbols]
    cell = (structure.lattice.matrix, structure.frac_coords, kinds)
    n_primitive = len(spglib.find_primitive(cell, symprec=0.01)[2])
    if n_primitive != int(row["n_atoms_primitive"]):
        wrong.append(f"{n_primitive} atoms in the primitive cell")
    groups = {spglib.get_symmetry_dataset(cell, symprec=tolerance).number for tolerance in (0.01, 0.1)}
    if not groups & {int(row["space_group"]), int(row["space_group_0.1"])}:
        wrong.append(f"groups {groups}")
    if not math.isclose(structure.volume / len(structure), float(row["volume_per_atom"]), rel_tol=0.01):
        wrong.append(f"{structure.volume / len(structure)} Å^3 per atom")
    shifts = np.array(list(np.ndindex(5, 5, 5))) - 2
    apart = structure.frac_coords[:, None] - structure.frac_coords[None]
    apart -= np.rint(apart)
    lengths = np.linalg.norm((apart[:, :, None] + shifts) @ structure.lattice.matrix, axis=3)
    nearest = lengths[lengths > 1e-8].min()
    if not math.isclose(nearest, float(row["nearest"]), rel_tol=0.02):
        wrong.append(f"nearest atoms {nearest} Å apart")
    return wrong


def disagreements(structures, reasons, rows):
    """Where the structures and the reasons for others differ from the rows of a file."""
    wrong, left = [], [row for row in rows if row["outcome"] != "refused"]
    for structure in structures:
        match = next((row for row in left if not differences(structure, row)), None)
        if match is None:
            wrong.append([differences(structure, row) for row in left] or f"{structure.formula} is read")
        else:
            left.remove(match)
    wrong += [f"{row['reduced_formula']} is not read" for row in left if row["outcome"] == "read"]
    if not all(reasons):
        wrong.append("an empty reason")
    return wrong
