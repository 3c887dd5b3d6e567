"""Charts for reports: histograms, bars, curves, a periodic table, maps of names.

Each function returns PNG bytes. Colours are those of the Okabe-Ito palette, safe for colour-blind readers.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
_COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#D55E00", "#56B4E9")
_BINS = 40


def histogram(
    values: Mapping[str, Sequence[float]], *, label: str, limits: tuple[float, float] | None = None
) -> bytes:
    """Draw histograms, in percent of each set.

    Args:
        limits: of the axis; values beyond count in the outermost bins. By default from the minimum to the
            99th percentile.
    """
    figure, axes = new_figure()
    sets = {name: np.asarray(v, dtype=float) for name, v in values.items() if len(v)}
    if sets:
        pooled = np.concatenate(list(sets.values()))
        low, high = limits or (float(pooled.min()), float(np.percentile(pooled, 99)))
        high = high if high > low else low + 1.0
        edges = np.linspace(low, high, _BINS + 1)
        for (name, numbers), colour in zip(sets.items(), _COLOURS, strict=False):
            inside = np.clip(numbers, low, high)
            weights = np.full(len(inside), 100 / len(inside))
            axes.hist(inside, edges.tolist(), weights=weights, label=name, color=colour, alpha=0.65)
    if len(sets) > 1:
        axes.legend(frameon=False)
    axes.set_xlabel(label)
    axes.set_ylabel("% of crystals")
    return png(figure)


def paired_bars(counts: Mapping[str, tuple[int, int]], *, labels: tuple[str, str], max_n: int = 20) -> bytes:
    """Draw two counts per name, the most frequent names first, the rest summed."""
    figure, axes = new_figure(height=4.2)
    ordered = sorted(counts.items(), key=lambda item: (-sum(item[1]), item[0]))
    shown = ordered[:max_n]
    if len(ordered) > max_n:
        rest = [sum(pair[k] for _, pair in ordered[max_n:]) for k in (0, 1)]
        shown.append((f"{len(ordered) - max_n} others", (rest[0], rest[1])))
    positions = np.arange(len(shown))
    for k, colour in enumerate((BLUE, ORANGE)):
        axes.bar(
            positions + 0.4 * (k - 0.5), [pair[k] for _, pair in shown], 0.4, label=labels[k], color=colour
        )
    axes.set_xticks(positions, [name for name, _ in shown], rotation=60, ha="right")
    axes.set_ylabel("crystals")
    axes.legend(frameon=False)
    return png(figure)


def bars(counts: Mapping[str, int], *, label: str, max_n: int = 30) -> bytes:
    """Draw counts by name, the most frequent first, the rest summed."""
    figure, axes = new_figure(height=4.2)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ordered[:max_n]
    if len(ordered) > max_n:
        shown.append((f"{len(ordered) - max_n} others", sum(n for _, n in ordered[max_n:])))
    axes.bar(range(len(shown)), [n for _, n in shown], color=BLUE)
    axes.set_xticks(range(len(shown)), [name for name, _ in shown], rotation=60, ha="right")
    axes.set_ylabel(label)
    return png(figure)


def periodic_table(counts: Mapping[str, int]) -> bytes:
    """Draw counts by element in the periodic table, coloured by their logarithm."""
    from matplotlib import colormaps
    from pymatgen.core import Element

    figure, axes = new_figure(height=3.4)
    highest = np.log10(max(counts.values(), default=1) + 1)
    for element in Element:
        if element.symbol in ("D", "T"):
            continue
        row, column = element.row, element.group
        if (element.is_rare_earth and element.symbol not in ("Sc", "Y")) or element.is_actinoid:
            row, column = element.row + 2.4, element.Z - (54 if element.row == 6 else 86)
        n = counts.get(element.symbol, 0)
        shade = colormaps["viridis"](np.log10(n + 1) / highest) if n else "#eeeeee"
        axes.add_patch(_square(column, row, shade))
        dark = n and np.log10(n + 1) / highest < 0.55
        style: dict[str, Any] = {"ha": "center", "va": "center", "color": "white" if dark else "black"}
        axes.text(column, row, element.symbol, fontsize=6.5, **style)
        if n:
            axes.text(column, row + 0.36, str(n), fontsize=3.6, **style)
    axes.set_xlim(0.4, 18.6)
    axes.set_ylim(9.9, 0.4)
    axes.axis("off")
    return png(figure)


def _square(column: float, row: float, colour: Any) -> Patch:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, facecolor=colour, linewidth=0)


def named_points(names: Sequence[str], points: Any, kinds: Sequence[str]) -> bytes:
    """Draw names at points [n, 2] of a map, coloured by kind."""
    from matplotlib import colormaps
    from matplotlib.lines import Line2D

    figure, axes = new_figure(height=5.6)
    order = list(dict.fromkeys(kinds))
    gradient = colormaps["viridis"](np.linspace(0, 0.9, len(order)))
    shades = dict(zip(order, _COLOURS if len(order) <= len(_COLOURS) else gradient, strict=False))
    for name, (x, y), kind in zip(names, np.asarray(points), kinds, strict=True):
        axes.text(x, y, name, color=shades[kind], fontsize=7, ha="center", va="center")
    axes.update_datalim(np.asarray(points))  # texts do not extend the limits
    axes.autoscale_view()
    axes.margins(0.06)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    marks = [Line2D([], [], marker="o", linestyle="", color=shades[kind], label=kind) for kind in order]
    if len(order) > 1:
        axes.legend(handles=marks, frameon=False, fontsize=7)
    return png(figure)


def curves(lines: Mapping[str, Sequence[tuple[float, float]]], *, labels: tuple[str, str]) -> bytes:
    """Draw named lines through points (x, y); the x axis is logarithmic if it spans more than a decade."""
    figure, axes = new_figure()
    for (name, points), colour in zip(lines.items(), _COLOURS, strict=False):
        axes.plot(*np.array(points, dtype=float).reshape(-1, 2).T, marker="o", color=colour, label=name)
    xs = [x for points in lines.values() for x, _ in points]
    if xs and min(xs) > 0 and max(xs) / min(xs) > 10:
        axes.set_xscale("log")
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    if len(lines) > 1:
        axes.legend(frameon=False)
    return png(figure)


def new_figure(height: float = 3.6) -> tuple[Figure, Axes]:
    """Return an empty figure with one pair of axes; its height is in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, height), dpi=110, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # without version and date: same bytes
    return buffer.getvalue()
