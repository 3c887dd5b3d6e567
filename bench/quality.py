"""What share of the crystals that a model writes for known compositions is sound.

    python bench/quality.py corpus.parquet --split test --entries 500 --constraints none full

One sample an entry, prompted with the composition of the known crystal's conventional cell. Prints a line for
each strength of constraints: parses (a structure comes out), formula (it holds the atoms that were asked
for), multiplicity, space group found again by spglib, bonds reasonable, valid (all of these), and bond
statistics.
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from crystallm.benchmarks.reference_sets import read_references, requests_for
from crystallm.errors import TextError
from crystallm.generation.generator import Generator
from crystallm.generation.request import SamplingOptions
from crystallm.models import load
from crystallm.validity import checks


def main() -> None:
    """Write, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", help="CSV(.gz) or Parquet file with a column 'cif'")
    parser.add_argument("--split", default=None)
    parser.add_argument("--entries", type=int, default=500)
    parser.add_argument("--constraints", nargs="+", default=["none", "full"])
    parser.add_argument("--model", default="default")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-k", type=int, default=10)
    parser.add_argument("--space-group", action="store_true", help="ask for the known crystal's group, too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load.load_model(args.model, device="cpu")
    truths = [entry.structure for entry in read_references(args.data, split=args.split, entries=args.entries)]
    room = model.config.context if model.language.name == "orbits" else None
    requests = [
        r for r in requests_for(truths, 1, with_group=args.space_group, context=room) if r is not None
    ]
    for constraints in args.constraints:
        settings = SamplingOptions(
            model=args.model,
            temperature=args.temperature,
            top_k=args.top_k,
            seed=args.seed,
            constraints=constraints,
            device="cpu",
        )
        generator = Generator(model, requests, settings)
        started = time.monotonic()
        crystals = [found[0] for found in generator.generate(range(len(requests)))]
        seconds = time.monotonic() - started
        parsed, right, asked = 0, [], 0
        for plan, crystal in zip(generator.plans, crystals, strict=True):
            try:
                counts = crystal.structure.composition.get_el_amt_dict()
            except TextError:
                right.append(False)
                continue
            parsed += 1
            right.append(plan.cell is not None and counts == dict(plan.cell.composition))
            if args.space_group and plan.space_group is not None:
                asked += crystal.space_group == plan.space_group.symbol
        verdicts = checks.check_many([c.checked_text for c in crystals], workers=args.workers)
        n = len(crystals)
        line = {
            "constraints": constraints,
            "n": n,
            "parses": parsed / n,
            "formula": sum(right) / n,
            "multiplicity": sum(v.multiplicity for v in verdicts) / n,
            "space_group": sum(v.space_group for v in verdicts) / n,
            **({"group_as_asked": asked / n} if args.space_group else {}),
            "bonds": sum(v.bond_score == 1.0 for v in verdicts) / n,
            "valid": sum(v.valid for v in verdicts) / n,
            "valid_and_formula": sum(v.valid and r for v, r in zip(verdicts, right, strict=True)) / n,
            "crystals_a_second": n / seconds,
        }
        print(
            json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()}), flush=True
        )


if __name__ == "__main__":
    main()
