"""Make `src/crystallm/benchmarks/data/classes.csv`: known compounds of the structure classes.

    python scripts/make_classes.py CORPUS --read train.csv.gz ...

CORPUS is as for `make_well_known.py`. Each of its crystals is looked at by `classes.member`. Of several rows
of one formula the first in SOURCES is taken (measured and well-relaxed cells before hypothetical compounds).
All formulas of val and test are kept, and of those of train so many, evenly spread by formula, that a class
has up to PER_CLASS. A formula that stands in a file after --read, which was read in training too, counts as
train.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from make_well_known import SOURCES, formulas, place
from pyarrow import parquet
from pymatgen.core import Composition, Structure

from crystallm.analysis.prototypes import PROTOTYPES, classify
from crystallm.benchmarks.structure_classes import COLUMNS

OUT = Path(__file__).parent.parent / "src/crystallm/benchmarks/data/classes.csv"
PER_CLASS = 60
MOLECULAR = frozenset("HCNOF")  # such a cation is what is left of a molecule, NH4 or CH3NH3, without its H


def main() -> None:
    """Find, choose and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--read", nargs="+", default=[], metavar="FILE")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of pymatgen, on nearly every file
    read = {formula for path in args.read for formula in formulas(path)}
    groups = {prototype.space_group for prototype in PROTOTYPES.values()}
    rows = [
        row
        for row in parquet.read_table(args.corpus).to_pylist()
        if row["space_group"] in groups and row["source"].split("/")[0] in SOURCES
    ]
    rows.sort(key=lambda row: (place(row["source"]), row["volume_per_atom"], row["id"]))
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        found = classify(Structure.from_str(row["cif"], fmt="cif"))
        if found is None or row["reduced_formula"] in best or MOLECULAR & set(found.elements[:-1]):
            continue
        tetragonal = "c" in PROTOTYPES[found.name].lengths
        best[row["reduced_formula"]] = {
            **row,
            "formula": found.formula,
            "class": found.name,
            "a": f"{found.a:.3f}",
            "c": f"{found.c:.3f}" if tetragonal else "",
            "split": "train" if Composition(found.formula).reduced_formula in read else row["split"],
        }
    kept = []
    for name in PROTOTYPES:
        members = sorted((row for row in best.values() if row["class"] == name), key=lambda r: r["formula"])
        unseen = [row for row in members if row["split"] != "train"]
        seen = [row for row in members if row["split"] == "train"]
        n = max(0, min(PER_CLASS - len(unseen), len(seen)))
        kept += sorted(unseen + [seen[i * len(seen) // n] for i in range(n)], key=lambda r: r["formula"])
        print(name, len(members), Counter(row["split"] for row in members))
    with OUT.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
    print(f"{len(kept)} compounds, {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
