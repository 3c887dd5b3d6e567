"""Collections and data set folders of tests, and rows that are rejected."""

from __future__ import annotations

import contextlib
import csv
import gzip
import random

from pyarrow import parquet

from crystallm.datasets import shards
from crystallm.datasets.options import PrepareOptions

POLONIUM = """data_Po
_space_group_name_H-M_alt 'P 1'
_cell_length_a 3.345
_cell_length_b 3.345
_cell_length_c 3.345
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Po1 Po 0 0 0
"""
"""Simple cubic, Beamer and Maxwell, J. Chem. Phys. 14, 569 (1946). An element without a token."""

HALF = POLONIUM.replace("_fract_z\n", "_fract_z\n_atom_site_occupancy\n").replace("0 0 0", "0 0 0 0.5")
TWICE = POLONIUM.replace("Po", "Fe") + "Fe2 Fe 0.05 0.05 0.05\n"
BROKEN = {
    "polonium": (POLONIUM, "elements", "the element Po"),
    "alloy": (HALF, "ordered", "Po0.5: sites shared"),
    "lost": (POLONIUM.replace("3.345", "nan"), "read", "_cell_length_a is 'nan'"),
    "noise": ("noise", "read", "it is not a CIF: no data block"),
    "empty": (" \n", "read", "the row has no text"),
    "groupless": (POLONIUM.replace("_space_group_name_H-M_alt 'P 1'\n", ""), "read", "it gives no symmetry"),
    "twice": (TWICE, "distance", "atoms closer than 0.5 Å"),
}
"""Text, and the step and the reason that refuse it."""

ALL = PrepareOptions(split_by="given")
"""Every crystal for training, nothing left out."""


def write_csv(path, rows, columns=("material_id", "cif")):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return str(path)


def contents(folder):
    """All files by name; Parquet as rows, since its bytes name the library's version."""
    return {
        path.name: parquet.read_table(path).to_pylist() if path.suffix == ".parquet" else path.read_bytes()
        for path in folder.iterdir()
    }


def all_bytes(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def crystals(folder, split):
    found = shards.load(folder, split)
    return [found.crystal(i).tolist() for i in range(len(found))]


def rows_of(folder, **wanted):
    found = contents(folder)["rows.parquet"]
    return [row["id"] for row in found if all(row[name] == value for name, value in wanted.items())]


def calling(function):
    """Progress that calls a function with the number of rows done by this run and before."""

    @contextlib.contextmanager
    def progress(_task, _total, done=0):
        yield lambda now: function(done + now)

    return progress


def counting(numbers):
    return calling(numbers.append)


def stretched(structure, factor):
    copy = structure.copy()
    copy.scale_lattice(structure.volume * factor)
    return copy.to(fmt="cif")


def write_long(folder, cifs):
    """Some 80 rows, sound and broken ones: 11 units of 7."""
    rows = [(f"{name}-{i}", cif) for i in range(14) for name, cif in cifs.items()]
    rows += [(name, text) for name, (text, _, _) in BROKEN.items()]
    random.Random(1).shuffle(rows)
    return write_csv(folder / "long.csv", rows)
