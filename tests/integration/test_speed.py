"""The measurements of speed: figures and aims come out as they went in, and a stopped run goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import speed_report

    return speed_report


def keep(out: Path, name: str, runs: list[dict], **options) -> None:
    folder = out / "pieces"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"name": name, "options": options, "runs": runs}))


def row(table: str, name: str) -> list[str]:
    (line,) = (line for line in table.splitlines() if line.startswith(f"| `{name}`"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_rates_aims_and_multiples(report, tmp_path):
    run = {"crystals": 10, "seconds": 4.0, "cpu": 2.0, "tokens": 4000, "read": 6000, "memory": 1.25}
    own = {"constraints": "full", "language": "cif"}
    keep(tmp_path, "cif-full-bfloat16-32", [run, run | {"cpu": 4.0}], batch=32, **own)
    keep(tmp_path, "cif-full-bfloat16-1", [run | {"cpu": 10.0}], batch=1, **own)
    keep(tmp_path, "cif-full-bfloat16-128-2threads", [run], batch=128, threads=2, **own)
    keep(tmp_path, "transformers-1", [{"crystals": 1, "seconds": 50.0, "cpu": 40.0, "tokens": 400}], batch=1)
    keep(tmp_path, "vllm-128-2threads", [run | {"seconds": 20.0}], batch=128, threads=2)
    # Of short texts, beside another process: in the table, and compared with nothing.
    fast = run | {"crystals": 1000}
    keep(tmp_path, "cif-none-bfloat16-32-beside1", [fast], batch=32, crowd=1, constraints="none")
    keep(tmp_path, "first", [{"crystals": 1, "seconds": 3.0, "parts": {"torch": 1.0, "model": 0.25}}])
    report.write(tmp_path)
    table = (tmp_path / report.TABLE).read_text()
    # Crystals of CPU time: 5 and 2.5 a second, 3.75 in the middle; 300 times 1/40 are aimed at.
    assert row(table, "cif-full-bfloat16-32")[1:] == [
        "2.5 (2.5 to 2.5)", "3.75 (2.5 to 5)", "1,000 (1,000 to 1,000)", "20, 2", "1.50", "1.2",
        "7.5 (50% of it)",
    ]  # fmt: skip
    assert row(table, "cif-full-bfloat16-1")[-1] == "1 (100% of it)"
    assert row(table, "cif-full-bfloat16-128-2threads")[-1] == "2.5 (100% of it)"
    assert row(table, "cif-none-bfloat16-32-beside1")[1:] == [
        "250",
        "500",
        "1,000",
        "1000, 1",
        "1.50",
        "1.2",
        "",
    ]
    assert table.count("times as many") == 3
    assert "one crystal at a time: 40 times" in table
    assert "`cif-full-bfloat16-32` against `transformers-1`, in batches: 150 times" in table
    assert "`cif-full-bfloat16-128-2threads` against `vllm-128-2threads`, in batches: 5 times" in table
    assert "first crystal, judged, from a cold shell: 3 s, n = 1 (aim 8); torch 1.00, model 0.25" in table
    assert (tmp_path / report.PICTURE).read_bytes().startswith(b"\x89PNG")


def test_a_profile_tells_shares_and_what_products_allow(report, tmp_path):
    run = {"crystals": 4, "seconds": 10.0, "cpu": 10.0, "tokens": 2000, "read": 3000}
    run |= {"parts": {"linear": 5.0, "attention": 3.0}}
    keep(tmp_path, "cif-full-bfloat16-128-profile", [run], batch=128, profile=True, constraints="full")
    products = {"crystals": 0, "seconds": 1.0, "cpu": 1.0, "tokens": 600, "peak_tokens": 14000.0}
    keep(tmp_path, "products-bfloat16-128-1threads", [products], threads=1)
    table = report.table(report.read(tmp_path / "pieces"))
    assert "linear 50%, attention 30%, rest 20%; 300 tokens read a second, 50% of what the linear" in table
    assert "on 1 threads: 600 tokens/s in linear layers alone, 14,000 at the peak" in table


def test_nothing_measured_is_said(report, tmp_path):
    with pytest.raises(SystemExit, match="holds no measurements"):
        report.write(tmp_path)


def test_what_is_measured_is_not_measured_again(tmp_path):
    rows = [{"reduced_formula": name, "split": "val"} for name in ("NaCl", "TiO2", "ZnS", "SrTiO3")]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "corpus.parquet")
    command = [
        *(sys.executable, str(BENCH / "speed.py"), "--parquet", str(tmp_path / "corpus.parquet")),
        *("--out", str(tmp_path / "out"), "--quick", "--profile", "--only", "*-full-bfloat16-128-profile"),
    ]
    # Of the two, `cif` has been measured.
    found = {"crystals": 3, "seconds": 1.0, "cpu": 1.0, "tokens": 30, "read": 30}
    quick = tmp_path / "out/quick"
    quick.mkdir(parents=True)
    keep(quick, "cif-full-bfloat16-128-profile", [found], batch=128, profile=True)
    # Of full size both are there, which is another matter.
    for name in ("cif", "orbits"):
        keep(tmp_path / "out", f"{name}-full-bfloat16-128-profile", [found], batch=128, profile=True)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ)
    assert "2 of 2: orbits-full-bfloat16-128-profile" in done.stdout
    assert "1 of 2" not in done.stdout
    kept = json.loads((quick / "pieces/orbits-full-bfloat16-128-profile.json").read_text())
    (run,) = kept["runs"]
    assert run["crystals"] == 2
    assert {"linear", "attention", "rules"} <= set(run["parts"])
    assert sum(run["parts"].values()) <= run["seconds"]
    assert row(done.stdout, "cif-full-bfloat16-128-profile")[1] == "3"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["pieces", "quick"]
