"""The report of the CSP benchmark: JSON without NaN, HTML with the table."""

from __future__ import annotations

import json

from crystallm.benchmarks.csp_report import CspReport
from crystallm.benchmarks.metrics import line


def test_the_record_is_json_and_the_report_shows_the_table(tmp_path):
    lines = [line("all samples", 2, [0.1, None]), line("all samples", 1, [None, None])]
    report = CspReport("book, 2 entries", lines, {"entries": 2, "seed": 0})
    report.write(tmp_path, {"all samples": [(1.0, 0.0), (2.0, 50.0)]})
    record = json.loads((tmp_path / "scores.json").read_text())
    assert record == report.record
    assert (record["benchmark"], record["n_entries"]) == ("csp", 2)
    assert record["lines"][0]["match_rate"] == 0.5
    assert record["lines"][0]["rmse"] == 0.1
    assert record["lines"][1]["rmse"] is None
    assert record["lines"][1]["rmse_interval"] == [None, None]
    html = (tmp_path / "report.html").read_text()
    assert "book, 2 entries" in html
    assert "data:image/png" in html
    assert "50.00" in html
