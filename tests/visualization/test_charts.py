"""Charts: PNG bytes, the same for the same data, for empty data too."""

from __future__ import annotations

import pytest

from crystallm.visualization import charts

DRAWINGS = {
    "histogram": lambda: charts.histogram({"a": [1.0, 2.0, 2.5], "b": []}, label="Å"),
    "nothing": lambda: charts.histogram({}, label="Å"),
    "paired": lambda: charts.paired_bars({"a": (1, 2), "b": (0, 1)}, labels=("x", "y"), max_n=1),
    "bars": lambda: charts.bars({"a": 3, "b": 1, "c": 1}, label="crystals", max_n=2),
    "elements": lambda: charts.periodic_table({"Ti": 3, "O": 6, "U": 1}),
    "curves": lambda: charts.curves({"a": [(1.0, 2.0), (100.0, 3.0)], "b": []}, labels=("x", "y")),
    "points": lambda: charts.named_points(["a", "b"], [[0, 0], [1, 2]], ["x", "y"]),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_charts_are_png_and_the_same_again(name):
    png = DRAWINGS[name]()
    assert png.startswith(b"\x89PNG")
    assert DRAWINGS[name]() == png
