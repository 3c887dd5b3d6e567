"""How long it takes, and how much memory, to find what is unique and novel among many crystals.

    python bench/novelty.py mp_20/val.csv.gz perov_5/val.csv.gz --known corpus.parquet --generated 10000

Known structures stand for generated ones, as many from each file as it has and are asked for, in turns.
Prints counts, rates, wall and CPU seconds, and the peak memory of this process and of the largest worker.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from itertools import chain, islice, zip_longest

from crystallm.benchmarks import novelty


def main() -> None:
    """Find them, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", nargs="+", help="CSV(.gz) or Parquet files with a column 'cif'")
    parser.add_argument("--known", nargs="+", required=True, help="the same")
    parser.add_argument("--generated", type=int, default=10_000, help="crystals (10000)")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--judge", action="store_true", help="judge validity, too; else all count as valid")
    args = parser.parse_args()
    files = [novelty.read_known([path]) for path in args.data]
    in_turns = (row for row in chain.from_iterable(zip_longest(*files)) if row is not None)
    texts = [text for _, text in islice(in_turns, args.generated)]
    stages: dict[str, float] = {}
    start = time.perf_counter()

    def on_done(stage: str, _done: int, _total: int) -> None:
        stages[stage] = time.perf_counter() - start

    result = novelty.evaluate(
        texts,
        novelty.read_known(args.known),
        valid=None if args.judge else [True] * len(texts),
        workers=args.workers,
        on_done=on_done,
    )
    wall = time.perf_counter() - start
    own, workers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    line = {
        "generated": len(texts),
        "known": result.n_known,
        "compared": result.n_compared,
        "unreadable": result.n_unreadable,
        "undecided": result.n_undecided,
        "valid": result.overall.valid if args.judge else None,
        "unique": result.overall.unique,
        "novel": result.overall.novel,
        "workers": args.workers,
        "wall_s": wall,
        "cpu_s": own.ru_utime + own.ru_stime + workers.ru_utime + workers.ru_stime,
        "until_s": stages,
        "peak_gb": own.ru_maxrss / 2**20,
        "peak_worker_gb": workers.ru_maxrss / 2**20,
    }
    print(json.dumps(line, default=float))


if __name__ == "__main__":
    main()
