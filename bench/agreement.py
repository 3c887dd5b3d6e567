"""From many samples to one answer: how often is it the known structure?

    python bench/agreement.py mp_20/val.csv.gz --entries 500 -n 20

For each known crystal n samples are written, prompted with the composition of its conventional cell, and one
is taken: the first, the likeliest, the likeliest of the largest cluster of equal ones, or the best by both
(see `crystallm.crystals.ranking`). Prints a line for each way with its match rate and RMSE, those of all n
samples
beside it, as `crystallm benchmark csp` counts them. With --judge, valid samples come before the others.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

import torch

from crystallm.benchmarks import csp, metrics
from crystallm.benchmarks.reference_sets import read_references, requests_for
from crystallm.crystals import ranking
from crystallm.errors import TextError
from crystallm.generation.generator import Generator
from crystallm.generation.request import SamplingOptions
from crystallm.models import load
from crystallm.validity import checks

if TYPE_CHECKING:
    from collections.abc import Sequence


def main() -> None:
    """Write, compare, fold, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", help="CSV(.gz) or Parquet file with a column 'cif'")
    parser.add_argument("--split", default=None)
    parser.add_argument("--entries", type=int, default=500)
    parser.add_argument("-n", type=int, default=20)
    parser.add_argument("--model", default="default")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-k", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--constraints", default="full")
    parser.add_argument("--auto-group", action="store_true", help="spread the samples over space groups")
    parser.add_argument("--judge", action="store_true", help="valid samples first")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load.load_model(args.model, device="cpu")
    truths = [entry.structure for entry in read_references(args.data, split=args.split, entries=args.entries)]
    room = model.config.context if model.language.name == "orbits" else None
    requests = requests_for(truths, args.n, context=room)
    asked = [i for i, request in enumerate(requests) if request is not None]
    wanted = [request for request in requests if request is not None]
    if args.auto_group:
        wanted = [request.model_copy(update={"space_group": "auto"}) for request in wanted]
    settings = SamplingOptions(
        model=args.model,
        temperature=args.temperature,
        top_k=args.top_k or None,
        seed=args.seed,
        constraints=args.constraints,
        device="cpu",
    )
    started = time.monotonic()
    written = list(Generator(model, wanted, settings).generate(range(len(wanted))))
    report("written", seconds=time.monotonic() - started)
    structures: list[list[Any]] = [[] for _ in truths]
    likelihood: list[list[float]] = [[] for _ in truths]
    samples: list[list[Any]] = [[] for _ in truths]
    judged: list[list[str]] = [[] for _ in truths]
    for i, crystals in zip(asked, written, strict=True):
        for crystal in crystals:
            try:
                structures[i].append(crystal.structure)
            except TextError:
                structures[i].append(None)
            # As the benchmark has it: the published language is read as it was printed.
            printed = model.language.name == "cif" and structures[i][-1] is not None
            samples[i].append(crystal.written if printed else structures[i][-1])
            likelihood[i].append(crystal.log_likelihood)
            judged[i].append(crystal.judged if args.judge else "")
    valid = [[True] * len(row) for row in judged]
    if args.judge:
        verdicts = iter(checks.check_many([x for row in judged for x in row], workers=args.workers))
        valid = [[next(verdicts).valid for _ in row] for row in judged]
        report("judged", valid=sum(map(sum, valid)) / max(1, sum(map(len, valid))))
    distances = csp.distances(truths, samples, workers=args.workers)
    rms = [[d.rms if d.passes_smact else None for d in row] for row in distances]
    started = time.monotonic()
    clusters = ranking.cluster_duplicates(structures, workers=args.workers)
    found = [len({c for c in row if c is not None}) for row in clusters]
    report("folded", seconds=time.monotonic() - started, distinct=sum(found) / max(1, len(found)))
    show("first", [row[:1] for row in rms])
    for by in ("likelihood", "agreement", "combined"):
        taken: list[Sequence[float | None]] = []
        for i, row in enumerate(rms):
            volumes = [ranking.volume_per_atom(structure) for structure in structures[i]]
            ranks = ranking.rank_samples(clusters[i], likelihood[i], valid[i], by, volumes=volumes)
            taken.append([row[ranks.index(1)]] if 1 in ranks else [])
        show(by, taken)
    show(f"any of {args.n}", rms)


def show(name: str, rms: Sequence[Sequence[float | None]]) -> None:
    """Print match rate and RMSE of what was taken."""
    most = max(1, max(map(len, rms), default=1))
    line = metrics.line(name, most, metrics.best_of(rms, most))
    report(name, match_rate=line.match_rate, rmse=line.rmse)


def report(name: str, **values: float) -> None:
    """Print a line."""
    print(json.dumps({"what": name} | {key: round(value, 4) for key, value in values.items()}), flush=True)


if __name__ == "__main__":
    main()
