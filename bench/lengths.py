"""Mean number of tokens of a crystal in the orbits language, over whole collections.

    python bench/lengths.py perov_5/val.csv.gz carbon_24/val.csv.gz mp_20/val.csv.gz

Prints a line for each, with the share of crystals that the language can tell.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from crystallm.datasets.options import PrepareOptions
from crystallm.datasets.process_row import treat
from crystallm.sources.splits import read_rows


def main() -> None:
    """Encode and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    encode = partial(treat, choices=PrepareOptions(max_length=10**6, min_distance=0))
    with ProcessPoolExecutor(args.workers) as pool:
        for path in args.data:
            found = list(pool.map(encode, read_rows(path), chunksize=100))
            lengths = np.array([row["n_tokens"] for row in found if not row["step"]])
            quantiles = np.percentile(lengths, [50, 90, 99]).round().astype(int).tolist()
            print(
                f"{path}: {len(lengths)} of {len(found)} encoded, mean {lengths.mean():.1f} tokens, "
                f"median {quantiles[0]}, 90 % within {quantiles[1]}, 99 % within {quantiles[2]}",
                flush=True,
            )


if __name__ == "__main__":
    main()
