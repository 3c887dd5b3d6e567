"""Result of the crystal structure prediction benchmark: JSON record, HTML report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crystallm.benchmarks.csp_table import LINES, line_cells
from crystallm.benchmarks.metrics import Line
from crystallm.storage import files


@dataclass(frozen=True)
class CspReport:
    """Table of the benchmark.

    Attributes:
        title: data set, number of entries, and model or file.
    """

    title: str
    lines: Sequence[Line]
    question: Mapping[str, Any]

    @property
    def record(self) -> dict[str, Any]:
        """Table and options as JSON values, None for NaN."""
        return {
            "benchmark": "csp",
            "n_entries": self.question["entries"],
            "lines": [{name: _plain(value) for name, value in asdict(line).items()} for line in self.lines],
            "question": dict(self.question),
        }

    def write(self, folder: Path, growth: Mapping[str, Sequence[tuple[float, float]]]) -> None:
        """Write scores.json and report.html."""
        from crystallm.visualization import charts
        from crystallm.visualization.html_report import HtmlReport

        report = HtmlReport(self.title)
        report.table(LINES, [line_cells(line) for line in self.lines])
        report.paragraph(
            "Intervals hold 95 % of the values over 2,000 bootstrap resamples of the entries. Match rates "
            "are over all entries. as the paper: samples with a plausible cell, whose composition passes the "
            "SMACT test; all samples: without that test; valid samples: those that pass all checks of "
            "`crystallm evaluate`; one of n: a single sample, chosen without the reference structure; METRe "
            "and cRMSE: arXiv 2509.12178."
        )
        if any(len(points) > 1 for points in growth.values()):
            picture = charts.curves(growth, labels=("samples per entry", "match rate, %"))
            report.picture(picture, "Match rate against the number of samples")
        options = [(name, str(value)) for name, value in self.question.items()]
        report.table(("option", "value"), options)
        files.write_json(folder / "scores.json", self.record)
        files.write_atomically(folder / "report.html", report.html().encode())


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: None for NaN, lists for tuples."""
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
