"""How long the first crystals of a list of formulas take: CPU seconds of a process, checkouts in turns.

    python bench/first_of_list.py list.csv CHECKOUT ... [--from network] [--runs 3]

A checkout is a folder with `src/crystallm`. Counted from a loaded model to the first movement of the progress
bar, and to the first block of 16 crystals, checks aside. Prints each run, then the mean and the standard
deviation of each checkout.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys, time
from pathlib import Path
from crystallm.crystals.selection import SelectionOptions
from crystallm.generation.analogues import library_of, make_generator, resolve_source
from crystallm.generation.request import SamplingOptions
from crystallm.models.load import load_model
from crystallm.pipelines import request_files
from crystallm.references.options import ReferenceOptions
path, source = sys.argv[1:]
model = load_model("default", device="cpu")
known = resolve_source(ReferenceOptions(crystals_from=source), "default")
library = library_of(known)
requests = list(request_files.checked(Path(path), n=1, check=lambda _: None))[:256]  # the first group
generator = make_generator(model, requests, SamplingOptions(device="cpu"), SelectionOptions(), library)
started = time.process_time()
moves = []
crystals = generator.generate(range(len(requests)), progress=lambda _: moves.append(time.process_time()))
for _ in range(16):
    next(crystals)
end = time.process_time()
print([*moves, end][0] - started, end - started)
"""


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("list")
    parser.add_argument("checkouts", nargs="+", type=Path)
    parser.add_argument("--from", dest="source", default="network", choices=("network", "both"))
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    seconds: dict[Path, list[list[float]]] = {path: [] for path in args.checkouts}
    for _ in range(args.runs):
        for path, found in seconds.items():
            environment = os.environ | {"PYTHONPATH": str(path.resolve() / "src"), "OMP_NUM_THREADS": "1"}
            command = [sys.executable, "-c", SCRIPT, args.list, args.source]
            run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            found.append([float(word) for word in run.stdout.split()])
            print(path, found[-1], flush=True)
    for path, found in seconds.items():
        for what, values in zip(("bar moves", "16 crystals"), zip(*found, strict=True), strict=True):
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            print(path, f"{what}, n = {len(values)}: {statistics.mean(values):.2f} ± {spread:.2f} s")


if __name__ == "__main__":
    main()
