from __future__ import annotations

import json

from crystallm.datasets import prepare
from crystallm.datasets import report as reports
from crystallm.datasets.options import PrepareOptions
from prepared import BROKEN, contents, write_csv


def test_every_row_is_kept_or_refused_with_its_reason(tmp_path, cifs):
    rows = [*cifs.items(), *((name, text) for name, (text, _, _) in BROKEN.items()), ("short",)]
    choices = PrepareOptions(split_by="given", max_length=18)
    report = prepare.prepare([write_csv(tmp_path / "book.csv", rows)], tmp_path / "data", choices)
    found = contents(tmp_path / "data")
    refused = {row["id"]: row for row in found["rejected.parquet"]}
    kept = [row["id"] for row in found["rows.parquet"]]
    assert sorted([*kept, *refused]) == sorted(row[0] for row in rows)
    assert kept == ["rocksalt", "rutile", "perovskite", "diamond"]
    for name, (_, step, reason) in BROKEN.items():
        assert refused[name]["step"] == step
        assert reason in refused[name]["reason"]
        assert "\n" not in refused[name]["reason"]
    assert (refused["wurtzite"]["step"], refused["wurtzite"]["reason"]) == ("length", "more than 18 tokens")
    assert sum(report.rejected.values()) == len(refused) == len(BROKEN) + 2
    assert report.written + len(refused) == report.read == len(rows)
    assert list(report.reasons.values()) == sorted(report.reasons.values(), reverse=True)  # most first
    assert json.loads(found["dataset.json"])["rejected"] == len(BROKEN) + 2
    assert reports.read(tmp_path / "data") == report
    page = found["report.html"].decode()
    assert "rejected: ordered" in page
    assert page.count("<img") == 3
