"""All that is said of the speed of writing crystals, measured by one command, as a table and a picture.

    python bench/speed.py --parquet corpus.parquet --out speed
    python bench/speed.py --parquet corpus.parquet --out speed --vllm-python venv/bin/python --profile --crowd
    python bench/speed.py --parquet corpus.parquet --out speed_gpu --device cuda

Each measurement is a process of its own (`pieces.py`), one after the other, about twenty minutes of a machine
with two cores that does nothing else. What each gave stays in OUT/pieces; the same command goes on where it
was stopped. At the end OUT/speed.md and OUT/speed.png are written (`speed_report.py`).

`cif`: the small network of the paper with random weights, formulas evenly spread over the val split of the
corpus; without rules its texts have no end and get the mean length of those under the rules, as do those of
`transformers` and vLLM. `orbits`: the bundled model. One thread unless it says otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pieces
import speed_report

TOKENS_OF = {"cpu": "cif-full-bfloat16-128", "cuda": "cif-full-bfloat16-512"}
"""Which measurement tells the mean length of a text."""
N = {"full": {1: 2, 8: 16, 32: 64, 128: 192}, "none": {1: 1, 8: 8, 32: 32, 128: 128}}
"""Crystals of a run by rules and the size of its batches: under rules texts end one after the other."""


@dataclass(frozen=True)
class Piece:
    """A measurement: its name, its kind in `pieces.KINDS`, and what this is told."""

    name: str
    kind: str
    options: dict[str, Any] = field(default_factory=dict)


def on_cpu(args: argparse.Namespace) -> list[Piece]:
    """What is measured without a GPU, the measurement that others need first."""
    found: list[Piece] = []

    def decode(what: str, batch: int, n: int, note: str = "", **own: Any) -> None:
        options = dict(zip(("language", "constraints", "dtype"), what.split("-"), strict=True))
        found.append(Piece(f"{what}-{batch}{note}", "decode", options | {"batch": batch, "n": n} | own))

    for dtype in ("bfloat16", "float32"):
        for constraints in ("full", "none"):
            for batch in (128, 32, 8, 1):
                repeats = 3 if batch == 1 else 2 if dtype == "bfloat16" or batch < 128 else 1
                decode(f"cif-{constraints}-{dtype}", batch, N[constraints][batch], repeats=repeats)
    for constraints in ("full", "none"):
        decode(f"cif-{constraints}-bfloat16", 128, N[constraints][128], "-2threads", threads=2, repeats=2)
        decode(
            f"cif-{constraints}-bfloat16", 128, 2 * N[constraints][128], "-2processes", processes=2, repeats=1
        )
    network = {"language": "cif", "tokens": None}
    options = network | {"batch": 1, "cached": False, "repeats": 2}
    found.append(Piece("transformers-1", "transformers", options))
    if args.vllm_python:
        options = network | {"batch": 128, "threads": 2, "python": args.vllm_python, "repeats": 2}
        found.append(Piece("vllm-128-2threads", "vllm", options))
    for dtype in ("float32", "bfloat16"):
        decode(f"orbits-full-{dtype}", 128, 512, repeats=2)
        decode(f"orbits-full-{dtype}", 128, 512, "-2threads", threads=2, repeats=2)
        decode(f"orbits-full-{dtype}", 128, 2048, "-2processes", processes=2, repeats=1)
    decode("orbits-none-bfloat16", 128, 1024, "-2threads", threads=2, repeats=2)
    decode("orbits-none-bfloat16", 128, 2048, "-2processes", processes=2, repeats=2)
    decode("orbits-full-float32", 1, 16, repeats=2)
    for dtype in ("float32", "bfloat16"):
        options = {"processes": 2, "batch": 128, "dtype": dtype, "n": 2048, "repeats": 1}
        found.append(Piece(f"command-{dtype}-2processes", "command", options))
    found.append(Piece("first", "first", {"repeats": 5}))
    if args.crowd:
        for policy in ("ACTIVE", "PASSIVE"):
            for crowd in (0, 1):
                note = f"-2threads-{policy.lower()}-beside{crowd}"
                own = {"environment": {"OMP_WAIT_POLICY": policy}, "crowd": crowd, "threads": 2}
                decode("cif-none-bfloat16", 32, 32, note, tokens=64, repeats=2, **own)
        decode("cif-none-bfloat16", 32, 32, "-1thread-beside1", tokens=64, repeats=2, crowd=1)
    if args.profile:
        for threads in (1, 2):
            options = {"language": "cif", "dtype": "bfloat16", "batch": 128, "threads": threads, "repeats": 3}
            found.append(Piece(f"products-bfloat16-128-{threads}threads", "products", options))
        for constraints in ("full", "none"):
            decode(
                f"cif-{constraints}-bfloat16", 128, N[constraints][128], "-profile", profile=True, repeats=1
            )
        decode("orbits-full-bfloat16", 128, 256, "-profile", profile=True, repeats=1)
    return found


def on_gpu(args: argparse.Namespace) -> list[Piece]:
    """What is measured on a GPU: the engine in one process and in several, `transformers` with its cache."""
    found: list[Piece] = []
    for language, constraints in (("cif", "full"), ("cif", "none"), ("orbits", "full"), ("orbits", "none")):
        for processes, batch in ((1, 512), (args.processes, 256)):
            options = {
                "language": language, "constraints": constraints, "dtype": "bfloat16", "batch": batch,
                "n": 2 * batch * processes, "processes": processes, "repeats": 1 if processes > 1 else 2,
                "device": args.device,
            }  # fmt: skip
            note = f"-{processes}processes" if processes > 1 else ""
            found.append(Piece(f"{language}-{constraints}-bfloat16-{batch}{note}", "decode", options))
    for batch in (128, 512):
        options = {"language": "cif", "dtype": "bfloat16", "batch": batch, "cached": True, "tokens": None}
        options |= {"repeats": 2, "device": args.device}
        found.append(Piece(f"transformers-cached-{batch}", "transformers", options))
    if args.profile:
        for language in ("cif", "orbits"):
            options = {
                "language": language, "constraints": "full", "dtype": "bfloat16", "batch": 512, "n": 512,
                "repeats": 1, "device": args.device, "profile": True,
            }  # fmt: skip
            found.append(Piece(f"{language}-full-bfloat16-512-profile", "decode", options))
    return found


def quick(piece: Piece) -> Piece:
    """The same for a look whether it works: a tiny network, two crystals."""
    small = {"tiny": True, "n": 2 * piece.options.get("processes", 1), "repeats": 1, "formulas": 2}
    return Piece(piece.name, piece.kind, piece.options | small)


def mean_length(folder: Path, device: str, default: int) -> int:
    """Tokens of a `cif` text under the rules, as far as that has been measured."""
    path = folder / f"{TOKENS_OF[device]}.json"
    if not path.is_file():
        return default
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
    return round(sum(run["tokens"] for run in runs) / sum(run["crystals"] for run in runs))


def measure(piece: Piece, folder: Path) -> None:
    """Run one measurement and keep what it told."""
    with contextlib.ExitStack() as beside:
        for _ in range(piece.options.get("crowd", 0)):
            busy = beside.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            beside.callback(busy.kill)
        done = subprocess.run(
            [sys.executable, pieces.__file__, piece.kind, json.dumps(piece.options)],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            env=os.environ | piece.options.get("environment", {}),
        )
    runs = pieces.read(done.stdout)
    if done.returncode or not runs:
        print(f"{piece.name} failed with code {done.returncode}; the others go on", file=sys.stderr)
        return
    kept = {"name": piece.name, "kind": piece.kind, "options": piece.options, "runs": runs}
    path = folder / f"{piece.name}.json"
    path.with_suffix(".part").write_text(json.dumps(kept, indent=1), encoding="utf-8")
    path.with_suffix(".part").rename(path)


def main() -> None:
    """Measure what is missing, then write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parquet", "--corpus", required=True, help="the corpus")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--vllm-python", help="python of an environment with vLLM")
    parser.add_argument("--processes", type=int, default=8, help="side by side on a GPU")
    parser.add_argument("--profile", action="store_true", help="where the time goes, too")
    parser.add_argument("--crowd", action="store_true", help="two threads beside another busy process, too")
    parser.add_argument("--only", default="*", help="pattern of names")
    parser.add_argument("--tokens", type=int, default=400, help="of a text, where no measurement tells")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, in OUT/quick: does it run?")
    parser.add_argument("--list", action="store_true", help="names alone")
    args = parser.parse_args()
    everything = (on_gpu if args.device == "cuda" else on_cpu)(args)
    chosen = [piece for piece in everything if fnmatch.fnmatch(piece.name, args.only)]
    if args.list:
        print("\n".join(piece.name for piece in chosen))
        return
    out = args.out / "quick" if args.quick else args.out  # none of it may pass for a measurement
    folder = out / "pieces"
    folder.mkdir(parents=True, exist_ok=True)
    for number, piece in enumerate(chosen, start=1):
        if (folder / f"{piece.name}.json").is_file():
            continue
        small = quick(piece) if args.quick else piece
        free = small.options.get("constraints") == "none" and "tokens" not in small.options
        if free or small.options.get("tokens", 0) is None:
            tokens = 16 if args.quick else mean_length(folder, args.device, args.tokens)
            small.options["tokens"] = tokens
        small.options["parquet"] = args.parquet
        start = time.perf_counter()
        print(f"{number} of {len(chosen)}: {piece.name} ", end="", flush=True)
        measure(small, folder)
        print(f"{time.perf_counter() - start:.0f} s", flush=True)
    speed_report.write(out)
    print((out / speed_report.TABLE).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
