"""Where the CPU time of four journeys goes, by stage: a table for each.

    python bench/journeys.py first
    python bench/journeys.py energies [--relax]
    python bench/journeys.py list list.csv --rows 1000
    python bench/journeys.py benchmark mp_20/test.csv.gz --rows 100

    first      the first crystal from a cold shell: `generate TiO2 -n 1`
    energies   20 crystals of a formula ranked by CHGNet's energies, relaxed with `--relax`
    list       one crystal for each formula of a list (`--requests`)
    benchmark  `benchmark csp` with 1 and 20 samples

Each journey is the command itself in a fresh process, with one thread; what would run in worker processes
runs in it. A stage has the time of its functions without that of other stages in them; timers cost a few per
cent. `list` and `benchmark` run a tenth of the rows first, in another process. Printed beside the stages is
what a row more takes, from the difference; times of longer lists follow from it.
"""

from __future__ import annotations

import argparse
import builtins
import functools
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable

STAGES = {
    "library": ["references.load:load_library"],
    "relatives": ["references.lookup:find_analogues"],
    "model": ["models.load:load"],
    "network": [
        *(f"sampling.decoder:Decoder.{name}" for name in ("step", "prefill")),
        "sampling.sample:_padded_logits",
    ],
    "choice of tokens": ["sampling.decoder:Decoder._draw"],
    "Z and groups": ["generation.choices:choices_of_many"],
    "rules": [
        *(f"grammar.orbits.header:OrbitsHeaderState.{name}" for name in ("allowed", "advance")),
        "grammar.orbits.state:OrbitsGrammar.start",
    ],
    "descriptions": [
        *(f"orbits.language:OrbitsLanguage.{name}" for name in ("decode", "standard_text")),
        "cif.writer:to_cif",
    ],
    "checks": ["validity.checks:check"],
    "loading CHGNet": ["energy.registry:load"],
    "energies": ["energy.chgnet:ChgnetModel.predict"],
    "relaxation": ["energy.relaxation:relax"],
    "clusters": [f"structures.duplicates:{name}" for name in ("cluster_duplicates", "find_duplicates")],
    "matching": [f"benchmarks.csp:{name}" for name in ("compare_record", "compare")],
    "writing": [f"storage.run_folder:RunFolder.{name}" for name in ("write_unit", "finish")],
    "reading requests": ["pipelines.request_files:survey"],
    "printing": [f"cli.crystal_tables:{name}" for name in ("print_crystals", "print_summary")],
}
"""Functions of each stage. All others are counted as `other`, imports as `imports`."""


class Here:
    """Stands for a pool of worker processes; runs each task at once."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def submit_task(self, function: Any, task: Any, limits: Any = None) -> Future[Any]:  # noqa: ARG002
        """Call a function, or the one of a name, on a task."""
        from crystallm.execution.tasks import resolve_function

        future: Future[Any] = Future()
        try:
            future.set_result(resolve_function(function)(task))
        except Exception as error:  # noqa: BLE001 - the future's reader decides
            future.set_exception(error)
        return future

    submit = submit_task

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Timers:
    """CPU seconds of stages, each without those of the stages that it calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._stack = ["other"]
        self._last = time.process_time()
        self.seconds["imports"] = self._last  # of Python itself and this script
        self._waiting = {
            f"crystallm.{name.partition(':')[0]}": [
                (stage, other.partition(":")[2])
                for stage, names in STAGES.items()
                for other in names
                if other.partition(":")[0] == name.partition(":")[0]
            ]
            for names in STAGES.values()
            for name in names
        }

    def switch(self) -> None:
        """Count the time since the last switch for the stage that runs."""
        now = time.process_time()
        self.seconds[self._stack[-1]] += now - self._last
        self._last = now

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose time is counted for a stage."""

        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.switch()
            self._stack.append(stage)
            try:
                return function(*args, **kwargs)
            finally:
                self.switch()
                self._stack.pop()

        return counted

    def watch_imports(self) -> None:
        """Count imports, and wrap the functions of the stages as soon as their modules are loaded."""
        for where, name in ((builtins, "__import__"), (importlib, "import_module")):
            setattr(where, name, self._wrapping(self.timed("imports", getattr(where, name))))

    def _wrapping(self, importer: Callable[..., Any]) -> Callable[..., Any]:
        def imported(*args: Any, **kwargs: Any) -> Any:
            found = importer(*args, **kwargs)
            for name in [name for name in self._waiting if _is_loaded(name)]:
                for stage, path in self._waiting.pop(name):
                    where: Any = sys.modules[name]
                    *parents, last = path.split(".")
                    for parent in parents:
                        where = getattr(where, parent)
                    setattr(where, last, self.timed(stage, getattr(where, last)))
            pool = sys.modules.get("crystallm.execution.pool")
            if pool is not None and hasattr(pool, "Inline"):
                pool.__dict__["ProcessPool"] = Here
            return found

        return imported


def _is_loaded(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return spec is not None and not getattr(spec, "_initializing", False)


def profile(command: list[str]) -> dict[str, float]:
    """Run a command of crystallm in this process, and return the CPU seconds of its stages."""
    timers = Timers()
    timers.watch_imports()
    from crystallm.cli.app import run

    if run(command):
        raise SystemExit("the command failed")
    timers.switch()
    return timers.seconds


def apart(command: list[str]) -> dict[str, float]:
    """Return the CPU seconds of the stages of a command, run in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "seconds.json"
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(
            [sys.executable, __file__, "command", "--out", str(out), *command],
            check=True,
            stdout=subprocess.DEVNULL,
            env=environment,
        )
        seconds: dict[str, float] = json.loads(out.read_text())
        return seconds


def show(title: str, seconds: dict[str, float], fewer: dict[str, float] | None = None, rows: int = 1) -> None:
    """Print a table; with the seconds of a tenth of the rows also what a row more takes."""
    total = sum(seconds.values())
    lines = {stage: seconds[stage] for stage in sorted(seconds, key=lambda stage: -seconds[stage])}
    print(f"\n{title}: {total:.2f} s of CPU")
    for stage, value in (lines | {"all": total}).items():
        if value >= 0.004 * total:
            before = None if fewer is None else fewer.get(stage, sum(fewer.values()) if stage == "all" else 0)
            more = "" if before is None else f"{1e3 * (value - before) / (rows - rows // 10):9.2f} ms a row"
            print(f"  {stage:18}{value:9.2f} s{value / total:7.0%}{more}")


def main() -> None:
    """Measure, and print."""
    if sys.argv[1:2] == ["command"]:
        Path(sys.argv[3]).write_text(json.dumps(profile(sys.argv[4:])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("journey", choices=("first", "energies", "list", "benchmark"))
    parser.add_argument("data", nargs="?")
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--formula", default="TiO2", help="of `first` and `energies`")
    parser.add_argument("--relax", action="store_true")
    parser.add_argument("--runs", type=int, default=1)
    args, more = parser.parse_known_args()
    for _ in range(args.runs):
        if args.journey == "first":
            show("first crystal", apart(["generate", args.formula, "-n", "1", *more]))
        elif args.journey == "energies":
            command = ["generate", args.formula, "-n", "20", "--rank", "energy", "--energy", "chgnet"]
            show("20 crystals", apart([*command, *["--relax"] * args.relax, *more]))
        else:
            fewer, seconds = (part(args.journey, args.data, n, more) for n in (args.rows // 10, args.rows))
            show(f"{args.journey}, {args.rows} rows", seconds, fewer, args.rows)


def part(journey: str, data: str, n: int, more: list[str]) -> dict[str, float]:
    """Return the stages of the first n rows of a list or a benchmark."""
    with tempfile.TemporaryDirectory() as folder:
        if journey == "benchmark":
            return apart(["benchmark", "csp", data, "--limit", str(n), "--out", f"{folder}/out", *more])
        lines = Path(data).read_text(encoding="utf-8").splitlines()[: n + 1]
        listed = Path(folder) / "list.csv"
        listed.write_text("\n".join(lines) + "\n", encoding="utf-8")
        command = ["generate", "--requests", str(listed), "-n", "1", "--no-write-cifs", "--quiet"]
        return apart([*command, "--workers", "1", "--out", f"{folder}/out", *more])


if __name__ == "__main__":
    main()
