"""Chart of a powder pattern: measured, calculated, their difference, and peaks without explanation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from crystallm.visualization import charts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

GREY = "#777777"


def fitted_pattern(
    two_theta: NDArray[np.float64],
    measured: NDArray[np.float64],
    calculated: NDArray[np.float64],
    *,
    title: str,
    reflections: Sequence[float] = (),
    unexplained: Sequence[float] = (),
) -> bytes:
    """Draw a pattern, what is calculated, and the difference below, as PNG.

    Args:
        two_theta: [n] degrees.
        measured: [n].
        calculated: [n], with its background.
        title: above the chart.
        reflections: angles of the ticks of reflections, degrees.
        unexplained: angles of measured peaks that are marked, degrees.
    """
    figure, axes = charts.new_figure(height=4.2)
    high = float(measured.max())
    low = float(min(measured.min(), calculated.min()))
    difference = measured - calculated
    offset = low - 0.12 * (high - low) - float(difference.max())
    axes.plot(two_theta, measured, ".", color=GREY, markersize=1.6, label="measured")
    axes.plot(two_theta, calculated, color=charts.BLUE, linewidth=0.9, label="calculated")
    axes.plot(two_theta, difference + offset, color=charts.ORANGE, linewidth=0.7, label="difference")
    ticks = np.full(len(reflections), low - 0.06 * (high - low))
    axes.plot(reflections, ticks, "|", color="black", markersize=5, label="reflections")
    for i, angle in enumerate(unexplained):
        height = float(np.interp(angle, two_theta, measured)) + 0.03 * (high - low)
        label = "unexplained" if i == 0 else None
        axes.plot([angle], [height], "v", color="#D55E00", markersize=5, label=label)
    axes.set_xlabel("2θ (degrees)")
    axes.set_ylabel("intensity")
    axes.set_title(title, fontsize=9, loc="left")
    axes.legend(frameon=False, fontsize=8, markerscale=2)
    return charts.png(figure)
