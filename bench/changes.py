"""Draw how many times faster things have become, from `changes.csv`: docs/explanation/speed.svg.

    python bench/changes.py

Each row has a figure before and after, both measured on one machine; for rates more is better, for times
less. `lower` and `upper` bound the 95 % interval of the factor, where it was measured over crystals.
"""

from __future__ import annotations

import csv
from pathlib import Path

from matplotlib.figure import Figure

HERE = Path(__file__).parent
PICTURE = HERE.parent / "docs" / "explanation" / "speed.svg"


def main() -> None:
    """Draw the factors, one bar a row."""
    with (HERE / "changes.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))[::-1]
    figure = Figure(figsize=(8, 0.5 * len(rows) + 1), layout="constrained")
    axes = figure.subplots()
    for y, row in enumerate(rows):
        before, after = float(row["before"]), float(row["after"])
        factor = after / before if " / " in row["unit"] else before / after
        axes.barh(y, factor, color="#0072B2", height=0.6)
        end = factor
        if row["upper"]:
            end = float(row["upper"])
            axes.plot([float(row["lower"]), end], [y, y], color="black")
        axes.text(1.05 * end, y, f"{factor:.3g}, n = {row['n']}", va="center")
    axes.set_yticks(range(len(rows)), [row["what"] for row in rows])
    axes.set_xscale("log")
    axes.set_xlim(0.9, 120)
    axes.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    axes.minorticks_off()
    axes.set_xlabel("times faster")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
