"""Several training runs side by side on one GPU, their best weights packed to be brought home.

    python dev/gpu_runs.py RUNS.json DATA OUT --seconds 540 --scale 1.0
    python dev/gpu_runs.py --pack OUT PACKED NAME...

RUNS.json holds {name: {"data": folder in DATA, "recipe": {fields}}}; `scale` multiplies their lengths in
tokens. A run that ends badly prints the end of its log; the others go on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

PART = 16_000_000  # bytes of a part of what is packed


def one(run: dict, data: Path, folder: Path) -> None:
    """Train in this process."""
    import torch

    from crystallm.recipe import Recipe
    from crystallm.training import train

    torch.set_float32_matmul_precision("high")
    recipe = Recipe.model_validate(run["recipe"])
    last = time.monotonic()

    def report(progress, found) -> None:
        nonlocal last
        if found is not None or time.monotonic() > last + 5:
            last = time.monotonic()
            val = f" val {found.crystal:.2f}" if found else ""
            print(
                f"{progress.update} {100 * progress.share:.1f} % {progress.tokens / progress.seconds:.0f} tok/s "
                f"{progress.operations / progress.seconds / 989e12:.3f} of peak, loss {progress.loss:.4f}{val}",
                flush=True,
            )

    train(recipe, data / run["data"], folder, report=report)
    print("done", flush=True)


def several(args: argparse.Namespace) -> None:
    """Start all and wait."""
    runs = json.loads(args.runs.read_text())
    args.out.mkdir(parents=True, exist_ok=True)
    started, running = time.monotonic(), {}
    for name, run in runs.items():
        if args.only and name not in args.only:
            continue
        recipe = run["recipe"]
        for key in ("tokens", "updates"):
            if key in recipe:
                recipe[key] = max(1, round(recipe[key] * args.scale))
        spec = args.out / f"{name}.json"
        spec.write_text(json.dumps(run))
        log = (args.out / f"{name}.log").open("w")
        command = [sys.executable, __file__, "--one", str(spec), str(args.data), str(args.out / name)]
        running[name] = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        if run.get("alone"):
            running[name].wait()
    told = started
    while running and time.monotonic() - started < args.seconds:
        time.sleep(1)
        for name, process in list(running.items()):
            if process.poll() is not None:
                del running[name]
                print(f"{time.monotonic() - started:.0f} s: {name} ended with {process.returncode}: {tail(args.out, name, 1 if not process.returncode else 12)}", flush=True)
        if time.monotonic() - told > args.tell:
            told = time.monotonic()
            for name in running:
                print(f"{told - started:.0f} s: {name}: {tail(args.out, name, 1)}", flush=True)
    for name, process in running.items():
        process.kill()
        process.wait()
        print(f"killed {name}: {tail(args.out, name, 1)}", flush=True)


def tail(out: Path, name: str, n: int) -> str:
    """The last lines of a log."""
    return " | ".join((out / f"{name}.log").read_text().splitlines()[-n:])[-1500:]


def best(out: Path, name: str) -> float:
    """Lowest validation loss of a run."""
    path = out / name / "metrics.jsonl"
    if not path.is_file():
        return float("inf")
    return min((json.loads(line)["val_loss_crystal"] for line in path.read_text().splitlines()), default=float("inf"))


def pack(out: Path, packed: Path, names: list[str]) -> None:
    """Best weights of runs (of `a,b,c`: the best of them) in bfloat16, and all logs, in parts of 16 MB."""
    import torch

    from crystallm import checkpoint

    archive = packed / "all.tar"
    with tarfile.open(archive, "w") as tar:
        for path in sorted(out.glob("*.log")):
            tar.add(path, path.name)
        for path in sorted(out.glob("*/metrics.jsonl")) + sorted(out.glob("*/recipe.json")):
            tar.add(path, f"{path.parent.name}/{path.name}")
        for several_names in names:
            ranked = sorted(several_names.split(","), key=lambda name: best(out, name))
            name = ranked[0]
            print("packing", name, [(n, round(best(out, n), 3)) for n in ranked])
            if best(out, name) == float("inf"):
                continue
            network = checkpoint.load(out / name / "model", device="cpu")
            folder = out / f"{name}.bf16"
            checkpoint.save(network, folder, dtype=torch.bfloat16)
            tar.add(folder, f"{name}/model")
    content = archive.read_bytes()
    archive.unlink()
    print(len(content), "bytes")
    for number, start in enumerate(range(0, len(content), PART)):
        (packed / f"all.tar.{number}").write_bytes(content[start : start + PART])


def main() -> None:
    """Run, or be one of the runs, or pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--one", action="store_true")
    parser.add_argument("--pack", action="store_true")
    parser.add_argument("runs", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("rest", nargs="*")
    parser.add_argument("--seconds", type=float, default=500)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--tell", type=float, default=60)
    parser.add_argument("--only", action="append")
    args = parser.parse_args()
    if args.one:
        one(json.loads(args.runs.read_text()), args.data, Path(args.rest[0]))
    elif args.pack:
        pack(args.runs, args.data, args.rest)
    else:
        args.out = Path(args.rest[0])
        several(args)


if __name__ == "__main__":
    main()
