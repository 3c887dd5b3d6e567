"""Units of work on a Dask cluster of two workers, and the scripts that a queue would be given."""

from __future__ import annotations

import builtins
import json
import logging
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import pytest
from distributed import LocalCluster
from pyarrow import parquet

from conftest import textbook
from crystallm.cif import writer as cif_writer
from crystallm.cli.app import run
from crystallm.errors import CrystallmError, InputError
from crystallm.execution import cluster, pool
from crystallm.execution.mapping import map_tasks, run_tasks
from crystallm.execution.tasks import Failure, Limits, WorkerStartError
from crystallm.storage import run_folder
from misbehaving import behave, conforms, ends

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = pytest.mark.usefixtures("kept", "undrawn")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a scheduler with two workers in processes of their own, which come back when they are killed."""
    settings = {"distributed.scheduler.worker-saturation": 1.0, "distributed.scheduler.allowed-failures": 1}
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as local,
    ):
        yield local.scheduler_address


@pytest.fixture
def queue(tmp_path: Path) -> Any:
    """A function that writes the file of a queue and returns its path."""

    def write(**values: Any) -> str:
        import yaml

        path = tmp_path / "queue.yaml"
        asked = {"system": "slurm", "cores": 8, "memory": "16GB"} | values
        path.write_text(yaml.safe_dump({name: value for name, value in asked.items() if value is not None}))
        return str(path)

    return write


def test_a_cluster_conforms(address: str) -> None:
    with cluster.connect(address) as executor:
        conforms(executor, elsewhere=True)


def note_and_wait(task: dict[str, Any]) -> int:
    with (Path(task["folder"]) / str(os.getpid())).open("a") as file:
        file.write(f"{task['number']}\n")
    time.sleep(0.3)
    return int(task["number"])


def test_a_killed_worker_loses_no_task(address: str, tmp_path: Path) -> None:
    tasks = [{"number": i, "folder": str(tmp_path)} for i in range(10)]
    found: dict[int, Any] = {}
    with cluster.connect(address) as executor:
        for task, value in map_tasks(executor, note_and_wait, tasks, ahead=10, limits=None):
            if not found:
                victim = int(next(tmp_path.iterdir()).name)
                os.kill(victim, signal.SIGKILL)
            found[task["number"]] = value
    assert found == {i: i for i in range(10)}
    ran = [line for path in tmp_path.iterdir() for line in path.read_text().split()]
    assert set(ran) == {str(i) for i in range(10)}
    assert ends(victim)


def test_limits_hold_on_workers_too(address: str) -> None:
    with cluster.connect(address) as executor:
        results = run_tasks(executor, behave, ["sleep", 1, "die", 2], limits=Limits(1.0))
    assert [type(result) for result in results] == [
        Failure,
        list,
        Failure,
        list,
    ]
    assert results[0].reason == "took longer than 1 s"
    assert results[2].reason == "the worker process died with code 7"


def test_workers_of_another_version_are_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import crystallm

    ours = crystallm.__version__
    monkeypatch.setattr("crystallm.execution.cluster.__version__", "9.9")
    with cluster.connect(address) as executor, pytest.raises(InputError, match=f"{ours}, and here is 9.9"):
        list(map_tasks(executor, behave, [1], ahead=1))


def test_a_cluster_that_goes_is_an_error_and_no_result(caplog: pytest.LogCaptureFixture) -> None:
    with (
        LocalCluster(n_workers=0, dashboard_address=":0", silence_logs=logging.CRITICAL) as local,
        cluster.connect(local.scheduler_address) as executor,
    ):
        assert "has no workers yet" in caplog.text
        future = executor.submit(behave, 1)
        local.close()
        with pytest.raises(WorkerStartError, match="has gone"):
            future.result(timeout=30)


def rows_of(folder: Path, *, without: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    return parquet.read_table(folder / "results.parquet").drop_columns(list(without)).to_pylist()


def same_rows(folder: Path, names: list[str], *, without: tuple[str, ...] = ()) -> None:
    """The rows agree; floats to the digits that another size of batch leaves, rms distances to rounding."""
    found = [rows_of(folder / name, without=without) for name in names]
    assert len(found[0]) == len(found[1]) > 0
    for one, other in zip(*found, strict=True):
        assert one.keys() == other.keys()
        for column, value in one.items():
            rel = 1e-9 if column == "rms" else 1e-4
            near = pytest.approx(value, rel=rel) if isinstance(value, float) else value
            assert other[column] == near, column


def test_crystals_are_judged_as_here(address: str, tmp_path: Path) -> None:
    place = tmp_path / "crystals"
    place.mkdir()
    for name, structure in textbook().items():
        (place / f"text-{name}.cif").write_text(cif_writer.to_text(structure))
        structure.to(filename=str(place / f"pymatgen-{name}.cif"))
    (place / "empty.cif").write_text("")
    command = ["evaluate", str(place), "--workers", "1", "--quiet", "--out"]
    assert run([*command, str(tmp_path / "here")]) == 0
    assert run([*command, str(tmp_path / "there"), "--cluster", address]) == 0
    assert rows_of(tmp_path / "here") == rows_of(tmp_path / "there")
    assert run([*command, str(tmp_path / "there"), "--cluster", "tcp://x:1"]) == 0  # nothing is left to do


def test_crystals_are_written_as_here(address: str, parrot: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("crystallm.pipelines.blocks.TASK_SIZE", 3)
    monkeypatch.setattr("crystallm.pipelines.blocks.BLOCK", 3)
    (tmp_path / "list.csv").write_text("formula,z,n\nTiO2,2,3\nNaCl,auto,2\nZnS,2,4\nC,8,1\n")
    command = ["generate", "--requests", str(tmp_path / "list.csv"), "--model", str(parrot), "--seed", "3"]
    command += ["--quiet", "--rank", "agreement", "--batch-size", "2", "--device", "cpu", "--out"]
    assert run([*command, str(tmp_path / "here")]) == 0
    assert run([*command, str(tmp_path / "there"), "--cluster", address]) == 0
    same_rows(tmp_path, ["here", "there"])
    names = [
        sorted(path.name for path in (tmp_path / where / "cifs").iterdir()) for where in ("here", "there")
    ]
    assert names[0] == names[1]
    assert (tmp_path / "here" / "run.json").read_bytes() == (tmp_path / "there" / "run.json").read_bytes()


def test_a_large_run_of_which_a_worker_is_killed_has_the_same_rows(
    address: str, babbler: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    from distributed import Client

    for name, value in {"LARGE": 10, "LARGE_BLOCK": 4, "TASK_SIZE": 4}.items():
        monkeypatch.setattr(f"crystallm.pipelines.blocks.{name}", value)
    (tmp_path / "list.csv").write_text("formula\n" + "TiO2\nC8\nNaCl\nZnS\n" * 12)
    command = ["generate", "--requests", str(tmp_path / "list.csv"), "-n", "1", "--model", str(babbler)]
    command += ["--quiet", "--batch-size", "2", "--device", "cpu", "--constraints", "none", "--out"]
    assert run([*command, str(tmp_path / "here")]) == 0
    write_unit, killed = run_folder.RunFolder.write_unit, []

    def killing(self: run_folder.RunFolder, *args: Any) -> None:
        if not killed:
            with Client(address, set_as_default=False) as client:
                busy = [worker for worker, tasks in client.processing().items() if tasks]
                # Where this process is slow, they may have done all there is: then an idle one is killed.
                pids = client.run(os.getpid, workers=busy or None)
            killed.extend(list(pids.values())[:1])
            os.kill(killed[0], signal.SIGKILL)
        write_unit(self, *args)

    monkeypatch.setattr(run_folder.RunFolder, "write_unit", killing)
    assert run([*command, str(tmp_path / "there"), "--cluster", address]) == 0
    assert ends(killed[0])
    rows = [parquet.read_table(tmp_path / name / "results").to_pylist() for name in ("here", "there")]
    for one, other in zip(*rows, strict=True):
        for column, value in one.items():
            close = pytest.approx(value, rel=1e-4) if isinstance(value, float) else value
            assert other[column] == close, column
    assert [row["request"] for row in rows[1]] == list(range(48))


def test_one_formula_is_written_on_a_cluster_too(address: str, parrot: Path, capsys: Any) -> None:
    command = ["generate", "TiO2", "--z", "2", "-n", "3", "--only-valid", "--model", str(parrot), "--json"]
    texts = []
    for where in ([], ["--cluster", address]):
        assert run([*command, *where]) == 0
        texts.append([json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()])
    assert texts[0] == texts[1]
    assert len(texts[0]) == 3


def test_a_run_that_lost_units_keeps_the_others_and_goes_on_here(
    address: str, parrot: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr("crystallm.pipelines.blocks.TASK_SIZE", 1)
    monkeypatch.setattr("crystallm.pipelines.blocks.BLOCK", 2)
    (tmp_path / "list.csv").write_text("formula\nNa4Cl4\nTi2O4\n")
    command = ["generate", "--requests", str(tmp_path / "list.csv"), "-n", "2", "--model", str(parrot)]
    command += ["--quiet", "--batch-size", "1", "--device", "cpu", "--out", str(tmp_path / "out")]

    class Losing(pool.Inline):
        def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            if 0 in args[0]["blocks"]:
                return super().submit(behave, "raise")
            return super().submit(function, *args, **kwargs)

    from contextlib import nullcontext

    with monkeypatch.context() as patch:
        patch.setattr(cluster, "connect", lambda _: nullcontext(Losing()))
        assert run([*command, "--cluster", "tcp://x:1"]) == 1
    assert "1 tasks failed, each 3 times (ValueError: no such thing)" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out" / "parts").iterdir()] == ["00001.parquet"]
    assert run(command) == 0
    assert [row["request"] for row in rows_of(tmp_path / "out")] == [0, 0, 1, 1]


def test_the_benchmark_has_the_figures_that_it_has_here(
    address: str, parrot: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    import csv

    place = tmp_path / "sets" / "perov_5"
    place.mkdir(parents=True)
    with (place / "test.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["material_id", "cif"])
        writer.writerows([name, structure.to(fmt="cif")] for name, structure in textbook().items())
    monkeypatch.setattr("crystallm.pipelines.csp_benchmark.BLOCK_SAMPLES", 6)
    monkeypatch.setattr("crystallm.pipelines.csp_benchmark.TASK_SAMPLES", 4)
    command = ["benchmark", "perov_5", "--data-dir", str(tmp_path / "sets"), "-n", "1,2", "--json"]
    command += ["--model", str(parrot), "--workers", "1", "--device", "cpu", "--out"]
    lines = []
    for name, where in (("here", []), ("there", ["--cluster", address])):
        assert run([*command, str(tmp_path / name), *where]) == 0
        lines.append(json.loads(capsys.readouterr().out)["lines"])
    same_rows(tmp_path, ["here", "there"], without=("fold_seconds",))
    assert [line["match_rate"] for line in lines[0]] == [line["match_rate"] for line in lines[1]]


@pytest.mark.parametrize("spec", ["somewhere", "tcp://", "host:port", "https://a.b/c", ""])
def test_what_is_neither_address_nor_file_is_refused(spec: str) -> None:
    with pytest.raises(InputError, match="tcp://host:8786"), cluster.connect(spec):
        pass


def test_an_address_where_nobody_answers_is_one_line(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(cluster, "TIMEOUT", 0.5)
    (tmp_path / "a.cif").write_text("")
    assert run(["evaluate", str(tmp_path), "--cluster", "tcp://127.0.0.1:9"]) == 1
    error = capsys.readouterr().err
    assert "no Dask scheduler answers at 'tcp://127.0.0.1:9' within 0.5 s" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("lacking", ["distributed", "dask_jobqueue"])
def test_a_missing_package_is_one_line(lacking: str, queue: Any, monkeypatch: Any) -> None:
    there = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == lacking:
            raise ImportError(name)
        return there(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    spec = "127.0.0.1:9" if lacking == "distributed" else queue()
    with pytest.raises(CrystallmError, match=r"pip install 'crystallm\[cluster\]'"), cluster.connect(spec):
        pass
