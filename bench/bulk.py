"""A run of many requests that is killed and goes on: its memory, and whether all rows are there.

    python bench/bulk.py --requests 100000

The network is a tiny one that has learned nothing: it is the handling of requests and rows that is measured.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from pyarrow import parquet

from crystallm.crystallography import formula
from crystallm.models import folder
from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT
from crystallm.orbits import vocabulary

METALS = "Li Na K Rb Cs Mg Ca Sr Ba Y La Ti Zr V Nb Cr Mo Mn Fe Co Ni Cu Zn Al Ga In Si Ge Sn".split()
OTHERS = "O S Se F Cl Br I N P".split()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        _write_inputs(place, args.requests)
        command = [
            sys.executable, "-m", "crystallm", "generate", "--requests", str(place / "list.csv"), "-n", "1",
            "--model", str(place / "model"), "--out", str(place / "out"), "--device", "cpu", "--quiet",
            "--constraints", "none", "--batch-size", "256", "--workers", str(args.workers),
        ]  # fmt: skip
        parts = place / "out" / "results"
        _run(command, parts, until=args.requests // 512 * 2 // 5)
        done = {path: path.stat().st_mtime_ns for path in parts.glob("part-*")}
        _run(command, parts, until=None)
        untouched = sum(path.stat().st_mtime_ns == written for path, written in done.items())
        rows = parquet.read_table(parts, columns=["request", "sample"]).to_pylist()
        pairs = {(row["request"], row["sample"]) for row in rows}
        print(f"{untouched} of {len(done)} parts untouched; {len(rows):,} rows, {len(pairs):,} different")


def _write_inputs(place: Path, n: int) -> None:
    """A list of requests, and a network of the `orbits` language."""
    draw = random.Random(0)
    with (place / "list.csv").open("w") as file:
        file.write("formula,z\n")  # z: else the network weighs it, which is not measured here
        for _ in range(n):
            one, two = draw.sample(METALS, 2)
            numbers = (draw.randint(1, 3), draw.randint(1, 3), draw.randint(1, 6))
            written = f"{one}{numbers[0]}{two}{numbers[1]}{draw.choice(OTHERS)}{numbers[2]}"
            file.write(f"{written},{formula.cell(written).z}\n")
    torch.manual_seed(0)
    config = ModelConfig(
        language="orbits", vocab_size=len(vocabulary.vocabulary()), context=24, n_layer=1, n_head=2, n_embd=16
    )
    folder.save(GPT(config).eval(), place / "model")


def _run(command: list[str], parts: Path, *, until: int | None) -> None:
    """Start the run, tell its memory as it goes, and kill it when so many parts are there."""
    start = told = time.monotonic()
    peak = 0.0
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            time.sleep(0.2)
            n = len(list(parts.glob("part-*")))
            now = time.monotonic()
            memory = _memory(process.pid)
            peak = max(peak, memory)
            if now - told > 20:
                told = now
                print(f"{now - start:.0f} s: {n} parts, {memory:.0f} MB", flush=True)
            if until is not None and n >= until:
                process.send_signal(signal.SIGKILL)
                break
    how = "killed" if process.returncode < 0 else f"ended with {process.returncode}"
    print(f"{how} after {time.monotonic() - start:.0f} s; at most {peak:.0f} MB", flush=True)


def _memory(pid: int) -> float:
    """Resident memory of a process, MB (Linux); 0 where it has gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


if __name__ == "__main__":
    main()
