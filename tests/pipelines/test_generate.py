"""Large runs: blocks that are done once and no more, whatever is killed, in memory that does not grow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from pyarrow import parquet

from crystallm.cli.app import run
from crystallm.cli.console import Pace
from crystallm.errors import InputError
from crystallm.execution import pool as execution_pool
from crystallm.pipelines import blocks
from crystallm.sources import collection
from crystallm.storage import run_folder
from crystallm.validity import checks
from killed import kill_after

if TYPE_CHECKING:
    from pathlib import Path

FORMULAS = ("NaCl", "TiO2", "ZnS", "SrTiO3", "C8")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts in this process: a worker process takes seconds to start."""
    monkeypatch.setattr(checks, "check_many", lambda texts, **_: [checks.check(text) for text in texts])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are large and blocks small."""
    monkeypatch.setattr(blocks, "LARGE", 10)
    monkeypatch.setattr(blocks, "LARGE_BLOCK", 8)
    monkeypatch.setattr(blocks, "TASK_SIZE", 8)


def test_a_crystal_of_a_known_one_needs_no_torch() -> None:
    script = (
        "import sys; from crystallm.cli.app import run; "
        "code = run(['generate', 'NaCl', '-n', '1', '--json']); "
        "print(code, {'torch', 'scipy', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    row, end = done.stdout.splitlines()
    assert json.loads(row)["model"] == "references"
    assert end == "0 set()"
    assert not done.stderr


def write_list(path: Path, n: int) -> Path:
    path.write_text("formula\n" + "".join(f"{FORMULAS[i % 5]}\n" for i in range(n)))
    return path


def command(listed: Path, model: Path, out: Path, *more: str) -> list[str]:
    asked = ["generate", "--requests", str(listed), "--model", str(model), "--out", str(out), "--quiet"]
    rules = () if "--constraints" in more else ("--constraints", "none")
    return [*asked, "--device", "cpu", *rules, *more]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(folder / run_folder.PARTS).to_pylist()
    return rows


def same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    """The rows agree; floats to the digits that another size of batch leaves."""
    assert len(one) == len(other) > 0
    for mine, yours in zip(one, other, strict=True):
        for name, value in mine.items():
            close = pytest.approx(value, rel=1e-4) if isinstance(value, float) else value
            assert yours[name] == close, name


# -- blocks --------------------------------------------------------------------------------------------------


def test_a_parted_request_has_the_crystals_of_a_whole_one(
    babbler: Path, tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["generate", "ZnS", "--z", "auto", "-n", "20", "--model", str(babbler), "--quiet"]
    asked += ["--constraints", "none", "--device", "cpu", "--out"]
    for size in (20, 7):
        monkeypatch.setattr(blocks, "BLOCK", size)
        assert run([*asked, str(tmp_path / str(size))]) == 0
    one, other = (
        parquet.read_table(tmp_path / name / run_folder.RESULTS).to_pylist() for name in ("20", "7")
    )
    same(one, other)
    assert [row["sample"] for row in other] == list(range(20))


# -- a large run ---------------------------------------------------------------------------------------------


def test_a_large_run_keeps_its_rows_in_parts(
    babbler: Path, tmp_path: Path, here: None, small: None, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = command(write_list(tmp_path / "list.csv", 50), babbler, tmp_path / "out", "-n", "1")
    assert run([part for part in asked if part != "--quiet"]) == 0
    said = capsys.readouterr()
    assert "50 requests" in said.out
    assert said.out.count("unfinished") == 40
    assert "50 crystals, 0 plausible" in said.out
    assert said.err == ""
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["results", "run.json", "summary.json"]
    assert len(list((tmp_path / "out" / "results").iterdir())) == 7
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == {
        "requests": 50,
        "crystals": 50,
        "valid": 0,
        "plausible": 0,
        "distinct": 0,
        "kept": 50,
    }
    asked_of = json.loads((tmp_path / "out" / "run.json").read_text())["requests"]
    assert (asked_of["requests"], asked_of["crystals"], len(asked_of["sha256"])) == (50, 50, 64)
    rows = rows_of(tmp_path / "out")
    assert [row["request"] for row in rows] == list(range(50))
    assert [row["sample_index"] for row in rows] == list(range(50))
    assert [entry.id for entry in collection.read(tmp_path / "out")] == [f"{i}-0" for i in range(50)]
    assert run([part if part != "--quiet" else "--json" for part in asked]) == 0
    assert [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()] == [
        row["text"] for row in rows
    ]


def test_a_large_run_has_the_rows_of_a_small_one(
    babbler: Path, tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = write_list(tmp_path / "list.csv", 30)
    assert run(command(listed, babbler, tmp_path / "small", "-n", "2")) == 0
    monkeypatch.setattr(blocks, "LARGE", 10)
    assert run(command(listed, babbler, tmp_path / "large", "-n", "2")) == 0
    same(parquet.read_table(tmp_path / "small" / run_folder.RESULTS).to_pylist(), rows_of(tmp_path / "large"))


@pytest.mark.parametrize(("option", "n_files"), [("--write-cifs", 5), ("--no-write-cifs", 0), (None, 0)])
def test_files_are_written_where_they_are_wanted(
    parrot: Path, tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch, option: str, n_files: int
) -> None:
    monkeypatch.setattr(blocks, "LARGE", 4)
    more = ("-n", "1", "--constraints", "full", *([option] if option else []))
    assert run(command(write_list(tmp_path / "list.csv", 5), parrot, tmp_path / "out", *more)) == 0
    rows = rows_of(tmp_path / "out")
    assert sorted(row["file"] for row in rows if row["file"]) == sorted(
        path.relative_to(tmp_path / "out" / "cifs").as_posix() for path in (tmp_path / "out").rglob("*.cif")
    )
    assert len({row["file"] for row in rows} - {None}) == n_files
    assert all(row["file"].startswith("00000/") for row in rows if row["file"])


def test_a_large_run_that_is_not_finished_is_no_collection(
    babbler: Path, tmp_path: Path, here: None, small: None
) -> None:
    assert run(command(write_list(tmp_path / "list.csv", 20), babbler, tmp_path / "out", "-n", "1")) == 0
    (tmp_path / "out" / "summary.json").unlink()
    with pytest.raises(InputError, match="is not finished"):
        list(collection.read(tmp_path / "out"))


def test_a_list_that_has_changed_is_another_run(
    babbler: Path, tmp_path: Path, here: None, small: None, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = command(write_list(tmp_path / "list.csv", 20), babbler, tmp_path / "out", "-n", "1")
    assert run(asked) == 0
    write_list(tmp_path / "list.csv", 21)
    assert run(asked) == 2
    assert "holds another run (requests was" in capsys.readouterr().err


def test_a_bad_row_in_the_middle_stops_a_large_run_before_it_begins(
    babbler: Path, tmp_path: Path, small: None, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = write_list(tmp_path / "list.csv", 500)
    lines = listed.read_text().splitlines()
    lines[250] = "PoO2"  # which the language cannot say, as its constraint-free network could not
    listed.write_text("\n".join(lines))
    assert run(command(listed, babbler, tmp_path / "out", "-n", "1")) == 2
    assert "list.csv, line 251: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# -- what is killed ------------------------------------------------------------------------------------------

LIMITS = {"LARGE": 1000, "BLOCK": 200, "GROUP": 400}
PATCHES = f"""
from crystallm.pipelines import blocks
from crystallm.validity import checks
vars(blocks).update({LIMITS})
checks.check_many = lambda texts, **_: [checks.check(text) for text in texts]  # seconds to start
"""


def test_a_killed_run_loses_and_repeats_nothing(
    babbler: Path, tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = write_list(tmp_path / "list.csv", 3000)

    def asked(out: Path) -> list[str]:
        return command(listed, babbler, out, "-n", "1", "--batch-size", "128")

    parts = tmp_path / "killed" / "results"
    kept = kill_after(4, asked(tmp_path / "killed"), parts, at_most=9, patches=PATCHES)
    done = {path: path.stat().st_mtime_ns for path in kept}
    assert 4 <= len(done) < 15
    for name, value in LIMITS.items():
        monkeypatch.setattr(blocks, name, value)
    for name in ("killed", "whole"):
        assert run(asked(tmp_path / name)) == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done
    rows = rows_of(tmp_path / "killed")
    assert [(row["request"], row["sample"]) for row in rows] == [(i, 0) for i in range(3000)]
    same(rows_of(tmp_path / "whole"), rows)
    assert sorted(path.name for path in (tmp_path / "killed").rglob("*")) == sorted(
        path.name for path in (tmp_path / "whole").rglob("*")
    )


def test_two_processes_of_which_one_is_killed_write_the_same_rows(
    babbler: Path, tmp_path: Path, here: None, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = write_list(tmp_path / "list.csv", 64)
    asked = ("-n", "1", "--batch-size", "4")
    assert run(command(listed, babbler, tmp_path / "one", *asked)) == 0
    pools: list[execution_pool.ProcessPool] = []
    killed: list[int] = []
    n_tasks: list[int] = []
    start, submit = execution_pool.ProcessPool.__init__, execution_pool.ProcessPool.submit_task
    keep = run_folder.RunFolder.write_unit

    def noted(self: execution_pool.ProcessPool, *args: Any, **more: Any) -> None:
        start(self, *args, **more)
        pools.append(self)

    def counted(self: execution_pool.ProcessPool, name: str, task: Any, limits: Any) -> Any:
        n_tasks.append(len(task["blocks"]))
        return submit(self, name, task, limits)

    def killing(self: run_folder.RunFolder, *args: Any) -> None:
        if not killed:
            busy = next(process for process in pools[0]._alive if process not in pools[0]._idle)
            killed.append(busy._process.pid)
            os.kill(busy._process.pid, signal.SIGKILL)
        keep(self, *args)

    monkeypatch.setattr(execution_pool.ProcessPool, "__init__", noted)
    monkeypatch.setattr(execution_pool.ProcessPool, "submit_task", counted)
    monkeypatch.setattr(run_folder.RunFolder, "write_unit", killing)
    assert run(command(listed, babbler, tmp_path / "two", *asked, "--workers", "2")) == 0
    n_blocks = sum(n_tasks)
    same(rows_of(tmp_path / "one"), rows_of(tmp_path / "two"))
    n_tasks.clear()
    assert run(command(listed, babbler, tmp_path / "three", *asked, "--workers", "2")) == 0
    assert n_blocks > sum(n_tasks)  # a task was run again


def test_the_processes_take_the_devices_in_turn() -> None:
    with execution_pool.ProcessPool(3) as pool:
        for _ in range(2):  # the second time, with a new one in the place of one that was lost
            runs = [execution_pool._RunningTask() for _ in range(3)]
            taken = [pool._take(task, "crystallm.errors:describe", None) for task in runs]
            assert sorted(process.index for process in taken) == [0, 1, 2]
            taken[1].stop()
            for task, process in zip(runs, taken, strict=True):
                pool._give_back(task, process)


# -- memory and time -----------------------------------------------------------------------------------------

MEMORY = """
import resource, sys
from pathlib import Path
from crystallm.cli import app
from crystallm.pipelines import blocks
from crystallm.sampling import sample as sampling
from crystallm.sampling.sequence import Sample
from crystallm.validity import checks
blocks.LARGE = 1000
verdict = checks.check("")
checks.check_many = lambda texts, **_: [verdict for _ in texts]

def sample_stream(network, requests, **_):
    # No network: each text ends at once, so that it is the handling of requests that is measured.
    for number, request in enumerate(requests):
        prompt = request.prompt
        ids = (*prompt, *prompt)
        yield Sample(number, request.index, ids, len(prompt), (0.0,) * len(prompt), True)

sampling.sample_stream = sample_stream
for n in (2_000, 20_000):
    Path("list.csv").write_text("formula\\n" + "NaCl\\nTiO2\\nZnS\\nSrTiO3\\nC8\\n" * (n // 5))
    assert app.run([*sys.argv[1:], "--out", str(n)]) == 0
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_run(babbler: Path, tmp_path: Path) -> None:
    asked = ["generate", "--requests", "list.csv", "--model", str(babbler), "-n", "1", "--quiet"]
    asked += ["--device", "cpu", "--constraints", "none"]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, *asked], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    for n in (2_000, 20_000):
        assert parquet.read_table(tmp_path / str(n) / run_folder.PARTS, columns=["request"]).num_rows == n
    peaks = [int(line) for line in done.stdout.split()]
    assert peaks[1] < peaks[0] + 30  # MB


def test_the_pace_is_that_of_the_last_minute() -> None:
    pace = Pace(100, 0.0)
    assert pace.describe(1000) == ""
    for second in range(1, 61):
        pace.mark(100 + second, float(second))
    assert pace.rate == pytest.approx(1.0)
    for second in range(61, 200):
        pace.mark(160 + 10 * (second - 60), float(second))
    assert pace.rate == pytest.approx(10.0)
    assert pace.describe(1550 + 36_000) == "10.0 crystals/s, 1:00:00 left"
