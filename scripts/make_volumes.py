"""Write the volumes of atoms into the last column of `src/crystallm/crystallography/data/elements.json`.

    pip install scipy && python scripts/make_volumes.py CORPUS

CORPUS is a Parquet file with the columns reduced_formula, volume_per_atom and split. The volumes v (Å^3) are
those that come nearest, by least squares over its train split, to sum(n_i v_i) / V = 1, where a formula unit
has n_i atoms of element i and the volume V, each v within BOUNDS. Crystals whose volume per atom is beyond
`contacts.VOLUMES` are left out: a handful that are no crystals would weigh most.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
from pyarrow import parquet
from pymatgen.core import Composition
from scipy.optimize import lsq_linear

from crystallm.geometry import contacts

OUT = Path(__file__).parent.parent / "src/crystallm/crystallography/data/elements.json"
BOUNDS = (4.0, 80.0)  # Å^3
N_COLUMNS = 8  # of a row, before the volume
LACKING = {"Ar": 37.4}  # no crystal of train holds it: solid argon, fcc, a = 5.31 Å


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus", type=Path)
    args = parser.parse_args()
    table = json.loads(OUT.read_text(encoding="ascii"))
    low, high = contacts.VOLUMES
    crystals = [
        (atoms_of(row["reduced_formula"]), row["volume_per_atom"])
        for row in parquet.read_table(args.corpus, filters=[("split", "=", "train")]).to_pylist()
        if low <= row["volume_per_atom"] <= high
    ]
    known = Counter(symbol for counts, _ in crystals for symbol in counts)
    symbols = [symbol for symbol in table if known[symbol]]
    shares = np.array(  # [n_crystals, n_elements]
        [[counts.get(s, 0.0) / (sum(counts.values()) * v) for s in symbols] for counts, v in crystals]
    )
    found = lsq_linear(shares, np.ones(len(crystals)), bounds=BOUNDS).x
    volumes = {**LACKING, **{s: round(v, 1) for s, v in zip(symbols, found.tolist(), strict=True)}}
    rows = {symbol: [*row[:N_COLUMNS], volumes[symbol]] for symbol, row in table.items()}
    lines = ",\n".join(f'  "{symbol}": {json.dumps(row)}' for symbol, row in rows.items())
    OUT.write_text(f"{{\n{lines}\n}}\n", encoding="ascii")
    off = np.log(shares @ [volumes[s] for s in symbols])
    print(f"{len(crystals)} crystals, {len(symbols)} elements; lacking: {', '.join(LACKING) or 'none'}")
    print(
        f"ln(sum / V): mean {off.mean():.3f}, deviation {off.std():.3f}, {off.min():.2f} to {off.max():.2f}"
    )
    print({symbol: (volumes[symbol], known[symbol]) for symbol in rows})


@cache
def atoms_of(formula: str) -> dict[str, float]:
    """Atoms of each element in a formula unit."""
    return dict(Composition(formula).get_el_amt_dict())


if __name__ == "__main__":
    main()
