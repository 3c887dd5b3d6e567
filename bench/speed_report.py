"""Table and picture of the speeds that `speed.py` measured. Knows figures and aims, and measures nothing.

python bench/speed_report.py OUT
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLE, PICTURE = "speed.md", "speed.png"
ORBITS, GPU_CIF, GPU_ORBITS = 200.0, 1000.0, 5000.0
"""Aims in crystals a second."""
TIMES_BATCHED, TIMES_ALONE, TIMES_VLLM = 300.0, 40.0, 5.0
"""Aims in multiples of `transformers` without its cache, and of vLLM."""
FIRST_SECONDS = 8.0
OTHERS = ("transformers", "vllm")
BLUE, GREY, ORANGE = "#0072B2", "#999999", "#D55E00"


@dataclass(frozen=True)
class Measured:
    """What one measurement gave.

    Attributes:
        name, options: as `speed.py` has them.
        runs: what each run told.
    """

    name: str
    options: dict[str, Any]
    runs: list[dict[str, Any]]

    def rates(self, what: str = "crystals", per: str = "seconds") -> list[float]:
        """So many a second in each run; `per` is `seconds` on the wall or `cpu`."""
        return [run[what] / run[per] for run in self.runs if run.get(per) and what in run]

    @property
    def side_by_side(self) -> bool:
        """Whether more than one core works on it, so that the wall counts."""
        many = self.options.get("threads", 1) > 1 or self.options.get("processes", 1) > 1
        return many or self.on_gpu

    @property
    def compared(self) -> bool:
        """Whether it is set against others: neither slowed by clocks or a crowd, nor of shorter texts."""
        return not self.options.keys() & {"profile", "environment", "crowd"}

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU does."""
        return str(self.options.get("device")).startswith("cuda")

    @property
    def rate(self) -> float:
        """Crystals a second: of CPU time on one thread, which waiting for others does not count in."""
        found = self.rates() if self.side_by_side else self.rates(per="cpu") or self.rates()
        return statistics.median(found) if found else 0.0


def read(folder: Path) -> list[Measured]:
    """All measurements of a folder, in the order of their names."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return [Measured(each["name"], each["options"], each["runs"]) for each in found]


def aims(measured: list[Measured]) -> dict[str, float]:
    """What is aimed at, crystals a second by name of the measurement; none where others were not measured."""
    by_name = {each.name: each for each in measured}
    found: dict[str, float] = {}
    plain, rival = by_name.get("transformers-1"), by_name.get("vllm-128-2threads")
    for each in measured:
        kind, batch = each.name.split("-")[0], each.options.get("batch")
        if not each.compared or kind not in {"cif", "orbits", "command"}:
            continue
        if each.on_gpu:
            found[each.name] = GPU_CIF if kind == "cif" else GPU_ORBITS
        elif kind == "command" or (kind == "orbits" and each.side_by_side):
            found[each.name] = ORBITS
        elif kind == "cif" and each.side_by_side and rival is not None:
            found[each.name] = TIMES_VLLM * rival.rate
        elif kind == "cif" and not each.side_by_side and plain is not None:
            found[each.name] = (TIMES_ALONE if batch == 1 else TIMES_BATCHED) * plain.rate
    return found


def _spread(values: list[float]) -> str:
    """Median, and from least to most where there are several."""
    if not values:
        return ""
    middle = _figure(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({_figure(min(values))} to {_figure(max(values))})"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _lines(measured: list[Measured], aimed: dict[str, float]) -> list[str]:
    lines = [
        "| | crystals/s, wall | crystals/s, CPU | tokens/s, wall | n, runs | read a token | GiB | aim |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in measured:
        runs = each.runs
        if not any(run.get("crystals") for run in runs) or each.name == "first":
            continue
        read_kept = [run["read"] / run["tokens"] for run in runs if "read" in run]
        memory = max((run.get("memory", 0.0) for run in runs), default=0.0)
        aim = aimed.get(each.name)
        cells = [
            f"`{each.name}`",
            _spread(each.rates()),
            _spread(each.rates(per="cpu")),
            _spread(each.rates("tokens")),
            f"{sum(run['crystals'] for run in runs)}, {len(runs)}",
            f"{statistics.mean(read_kept):.2f}" if read_kept else "",
            f"{memory:.1f}" if memory else "",
            "" if aim is None else f"{_figure(aim)} ({each.rate / aim:.0%} of it)",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _ratios(measured: list[Measured]) -> list[str]:
    """How many times the crystals of others, each against its own kind of time."""
    by_name = {each.name: each for each in measured}
    lines = []
    for rival in (each for each in measured if each.name.startswith(OTHERS)):
        same = [
            each
            for each in measured
            if each.name.startswith("cif") and each.compared
            and each.side_by_side == rival.side_by_side and each.on_gpu == rival.on_gpu
        ]  # fmt: skip
        for name, fitting in (
            ("one crystal at a time", [each for each in same if each.options["batch"] == 1]),
            ("in batches", [each for each in same if each.options["batch"] > 1]),
        ):
            for constraints in ("full", "none"):
                found = [each for each in fitting if each.options["constraints"] == constraints]
                if found and rival.rate:
                    best = max(found, key=lambda each: each.rate)
                    lines.append(
                        f"- `{best.name}` against `{rival.name}`, {name}: "
                        f"{_figure(best.rate / rival.rate)} times as many crystals"
                    )
    first = by_name.get("first")
    if first is not None:
        seconds = [run["seconds"] for run in first.runs]
        lines.append(f"- first crystal, judged, from a cold shell: {_spread(seconds)} s, n = {len(seconds)} "
                     f"(aim {FIRST_SECONDS:g}); {_parts(first)}")  # fmt: skip
    return lines


def _parts(measured: Measured) -> str:
    """Seconds of the parts of a measurement, in the order in which they were told."""
    names = list(dict.fromkeys(name for run in measured.runs for name in run.get("parts", {})))
    median = {name: statistics.median(run["parts"].get(name, 0.0) for run in measured.runs) for name in names}
    return ", ".join(f"{name} {seconds:.2f}" for name, seconds in median.items())


def _profiles(measured: list[Measured]) -> list[str]:
    """Shares of the time, and tokens a second against what matrix products allow."""
    limits = {each.options.get("threads", 1): each for each in measured if each.name.startswith("products")}
    lines = []
    for n, each in sorted(limits.items()):
        peak = statistics.median(run["peak_tokens"] for run in each.runs)
        lines.append(
            f"- bfloat16 on {n} threads: {_spread(each.rates('tokens'))} tokens/s in linear layers alone, "
            f"{_figure(peak)} at the peak of large products"
        )
    for each in measured:
        if not each.options.get("profile") or not each.runs:
            continue
        total = sum(run["seconds"] for run in each.runs)
        parts: dict[str, float] = {}
        for run in each.runs:
            for name, seconds in run.get("parts", {}).items():
                parts[name] = parts.get(name, 0.0) + seconds
        parts["rest"] = total - sum(parts.values())
        ranked = sorted(parts.items(), key=lambda part: -part[1])
        told = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in ranked)
        read_rate = sum(run["read"] for run in each.runs) / total
        limit = limits.get(1)
        share = ""
        if limit is not None and each.name.startswith("cif"):
            most = statistics.median(limit.rates("tokens"))
            share = f", {read_rate / most:.0%} of what the linear layers alone do"
        lines.append(f"- `{each.name}`: {told}; {_figure(read_rate)} tokens read a second{share}")
    return lines


def table(measured: list[Measured]) -> str:
    """All figures as Markdown."""
    parts = [_lines(measured, aims(measured)), _ratios(measured), _profiles(measured)]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def picture(measured: list[Measured], path: Path) -> None:
    """Bars on a logarithmic scale, each with what is aimed at."""
    from matplotlib.figure import Figure

    shown = [each for each in measured if each.rate and each.compared and each.name != "first"]
    aimed = aims(measured)
    figure = Figure(figsize=(8, 1.2 + 0.24 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for place, each in enumerate(shown):
        axes.barh(place, each.rate, color=GREY if each.name.startswith(OTHERS) else BLUE, height=0.7)
        axes.text(each.rate, place, f" {_figure(each.rate)}", va="center", fontsize=7)
        if each.name in aimed:
            axes.plot([aimed[each.name]] * 2, [place - 0.45, place + 0.45], color=ORANGE, linewidth=2)
    axes.set_yticks(range(len(shown)), [each.name for each in shown], fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("crystals/s (one thread: of CPU time, else of wall time); orange: aim; grey: others")
    figure.savefig(path, dpi=150)


def write(out: Path) -> None:
    """Write the table and the picture of a folder of measurements.

    Raises:
        SystemExit: there are none.
    """
    measured = read(out / "pieces")
    if not measured:
        raise SystemExit(f"{out / 'pieces'} holds no measurements: run bench/speed.py first")
    (out / TABLE).write_text(table(measured), encoding="utf-8")
    picture(measured, out / PICTURE)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
