"""Charts for reports: how numbers are spread, how often groups occur, how a rate grows.

Knows numbers, names and matplotlib; writes no files: a picture is returned as PNG bytes. Colours are those of
the Okabe-Ito palette, which colour-blind readers tell apart.
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


BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#999999"

_COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#D55E00", "#56B4E9")

_BINS = 40


def histogram(
    values: Mapping[str, Sequence[float]], *, label: str, limits: tuple[float, float] | None = None
) -> bytes:
    """How numbers are spread.

    Args:
        values: one or several sets by name.
        label: of the axis, with its unit.
        limits: of the axis; numbers beyond are counted at its ends. By default from the least to the 99th
            percentile.
    """
    figure, axes = _figure()
    known = {name: np.asarray(v, dtype=float) for name, v in values.items() if len(v)}
    if known:
        together = np.concatenate(list(known.values()))
        low, high = limits or (float(together.min()), float(np.percentile(together, 99)))
        high = high if high > low else low + 1.0
        edges = np.linspace(low, high, _BINS + 1)
        for (name, numbers), colour in zip(known.items(), _COLOURS, strict=False):
            inside = np.clip(numbers, low, high)
            weights = np.full(len(inside), 100 / len(inside))
            axes.hist(inside, edges.tolist(), weights=weights, label=name, color=colour, alpha=0.65)
    if len(known) > 1:
        axes.legend(frameon=False)
    axes.set_xlabel(label)
    axes.set_ylabel("% of crystals")
    return _png(figure)


def paired_bars(counts: Mapping[str, tuple[int, int]], *, labels: tuple[str, str], most: int = 20) -> bytes:
    """Two counts for each of several names, the most frequent names first, the others put together.

    Args:
        counts: by name.
        labels: what the two counts are.
        most: names that are shown.
    """
    figure, axes = _figure(height=4.2)
    ordered = sorted(counts.items(), key=lambda item: (-sum(item[1]), item[0]))
    shown = ordered[:most]
    if len(ordered) > most:
        rest = [sum(pair[k] for _, pair in ordered[most:]) for k in (0, 1)]
        shown.append((f"{len(ordered) - most} others", (rest[0], rest[1])))
    places = np.arange(len(shown))
    for k, colour in enumerate((BLUE, ORANGE)):
        axes.bar(places + 0.4 * (k - 0.5), [pair[k] for _, pair in shown], 0.4, label=labels[k], color=colour)
    axes.set_xticks(places, [name for name, _ in shown], rotation=60, ha="right")
    axes.set_ylabel("crystals")
    axes.legend(frameon=False)
    return _png(figure)


def bars(counts: Mapping[str, int], *, label: str, most: int = 30) -> bytes:
    """Counts by name, the most frequent first, the others put together.

    Args:
        counts: by name.
        label: of the axis.
        most: names that are shown.
    """
    figure, axes = _figure(height=4.2)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ordered[:most]
    if len(ordered) > most:
        shown.append((f"{len(ordered) - most} others", sum(n for _, n in ordered[most:])))
    axes.bar(range(len(shown)), [n for _, n in shown], color=BLUE)
    axes.set_xticks(range(len(shown)), [name for name, _ in shown], rotation=60, ha="right")
    axes.set_ylabel(label)
    return _png(figure)


def periodic_table(counts: Mapping[str, int]) -> bytes:
    """Counts by element in the places of the periodic table, coloured by their logarithm."""
    from matplotlib import colormaps
    from pymatgen.core import Element

    figure, axes = _figure(height=3.4)
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
    return _png(figure)


def _square(column: float, row: float, colour: Any) -> Patch:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, facecolor=colour, linewidth=0)


def named_points(names: Sequence[str], places: Any, kinds: Sequence[str]) -> bytes:
    """Names at places [n, 2] on a map, coloured by what they are."""
    from matplotlib import colormaps
    from matplotlib.lines import Line2D

    figure, axes = _figure(height=5.6)
    order = list(dict.fromkeys(kinds))
    many = colormaps["viridis"](np.linspace(0, 0.9, len(order)))
    shades = dict(zip(order, _COLOURS if len(order) <= len(_COLOURS) else many, strict=False))
    for name, (x, y), kind in zip(names, np.asarray(places), kinds, strict=True):
        axes.text(x, y, name, color=shades[kind], fontsize=7, ha="center", va="center")
    axes.update_datalim(np.asarray(places))  # names have none of their own
    axes.autoscale_view()
    axes.margins(0.06)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    marks = [Line2D([], [], marker="o", linestyle="", color=shades[kind], label=kind) for kind in order]
    if len(order) > 1:
        axes.legend(handles=marks, frameon=False, fontsize=7)
    return _png(figure)


def curves(lines: Mapping[str, Sequence[tuple[float, float]]], *, labels: tuple[str, str]) -> bytes:
    """Lines through points (x, y), with names, the x axis logarithmic where it spans more than a decade."""
    figure, axes = _figure()
    for (name, points), colour in zip(lines.items(), _COLOURS, strict=False):
        axes.plot(*np.array(points, dtype=float).reshape(-1, 2).T, marker="o", color=colour, label=name)
    places = [x for points in lines.values() for x, _ in points]
    if places and min(places) > 0 and max(places) / min(places) > 10:
        axes.set_xscale("log")
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    if len(lines) > 1:
        axes.legend(frameon=False)
    return _png(figure)


def _figure(height: float = 3.6) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, height), dpi=110, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # no version, no date: equal bytes
    return buffer.getvalue()
