from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
from pyarrow import parquet

from crystallm.errors import CrystallmError, InputError
from crystallm.options import NOT_DECIDING, Options
from crystallm.storage.run_folder import RunFolder, result_files
from crystallm.version import __version__

COLUMNS = {"unit": "int32", "name": "string", "energy": "float64"}

# A run of five units; it stops to wait for a kill at the unit given.
WORK = """
import sys, time
from crystallm.storage.run_folder import RunFolder
COLUMNS = {"unit": "int32", "name": "string", "energy": "float64"}
folder = RunFolder(sys.argv[1], {"seed": 1}, COLUMNS)
for unit in sorted(set(range(5)) - set(folder.done())):
    print(unit, flush=True)
    if unit == int(sys.argv[2]):
        time.sleep(60)
    folder.write_unit(unit, [{"unit": unit, "name": f"c{unit}", "energy": None}], {f"c{unit}.cif": "data_"})
folder.finish()
"""


def folder(path, config=None):
    return RunFolder(path, config or {"seed": 1}, COLUMNS)


def fill(run, units):
    for unit in units:
        row = {"unit": unit, "name": f"c{unit}", "energy": None if unit else -1.5}
        run.write_unit(unit, [row], {f"c{unit}.cif": f"data_{unit}\n"})


def files(path):
    return sorted(str(file.relative_to(path)) for file in Path(path).rglob("*") if file.is_file())


def test_all_units_give_one_table_in_their_order(tmp_path):
    run = folder(tmp_path / "a" / "b")
    run.open()
    assert run.done() == []
    fill(run, [2, 0, 1])
    run.finish()
    table = parquet.read_table(run.path / "results.parquet")
    assert table.column_names == list(COLUMNS)
    assert table.to_pylist() == run.rows()
    assert [row["unit"] for row in run.rows()] == [0, 1, 2]
    assert run.rows()[0]["energy"] == -1.5
    assert files(run.path) == ["cifs/c0.cif", "cifs/c1.cif", "cifs/c2.cif", "results.parquet", "run.json"]


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    run = folder(tmp_path)
    run.open()
    fill(run, range(3))
    run.finish()
    again = folder(tmp_path)
    again.check()
    assert again.finished
    again.finish()
    assert len(again.rows()) == 3


def test_a_killed_run_started_again_ends_with_the_same_rows(tmp_path):
    def start(path, stop):
        return subprocess.Popen(
            [sys.executable, "-c", WORK, str(path), str(stop)], stdout=subprocess.PIPE, text=True
        )

    with start(tmp_path / "whole", -1) as whole:
        assert whole.communicate()[0].split() == ["0", "1", "2", "3", "4"]
    with start(tmp_path / "killed", 2) as killed:
        for line in killed.stdout:
            if line.strip() == "2":
                break
        killed.send_signal(signal.SIGKILL)
    assert files(tmp_path / "killed") == [
        "cifs/c0.cif", "cifs/c1.cif", "parts/00000.parquet", "parts/00001.parquet", "run.json",
    ]  # fmt: skip
    with start(tmp_path / "killed", -1) as again:
        assert again.communicate()[0].split() == ["2", "3", "4"]
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    rows = [parquet.read_table(tmp_path / name / "results.parquet") for name in ("whole", "killed")]
    assert rows[0].equals(rows[1])


def test_leftovers_of_a_killed_write_are_swept_away(tmp_path):
    folder(tmp_path).open()
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / ".00000.parquet.123.tmp").write_bytes(b"half")
    folder(tmp_path).open()
    assert files(tmp_path) == ["run.json"]


def test_a_folder_of_another_run_is_refused(tmp_path):
    folder(tmp_path, {"seed": 1, "model": "default"}).open()
    with pytest.raises(InputError, match=r"holds another run \(seed was 1, now 2\): choose another"):
        folder(tmp_path, {"seed": 2, "model": "default"}).open()


def test_what_differs_is_named_before_what_one_run_lacks(tmp_path):
    folder(tmp_path, {"library": None, "requests": ["TiO2"]}).open()
    with pytest.raises(InputError, match=r"\(requests was"):
        folder(tmp_path, {"library": "0c2f", "requests": ["ZnS"]}).open()


def test_a_folder_of_another_command_is_named_by_it(tmp_path):
    folder(tmp_path, {"command": "generate", "cifs": True}).open()
    with pytest.raises(InputError, match="holds a run of 'generate': choose another folder with --out"):
        folder(tmp_path, {"command": "relax"}).open()


def test_results_of_unknown_origin_are_not_overwritten(tmp_path):
    (tmp_path / "results.parquet").write_bytes(b"dear")
    with pytest.raises(InputError, match="another origin"):
        folder(tmp_path).open()
    assert (tmp_path / "results.parquet").read_bytes() == b"dear"


def test_a_file_in_the_way_is_one_error(tmp_path):
    (tmp_path / "out").write_text("")
    for path in (tmp_path / "out", tmp_path / "out" / "deeper"):
        with pytest.raises(CrystallmError, match="is a file") as caught:
            folder(path).open()
        assert caught.value.exit_code == 1


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_one_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(CrystallmError, match="cannot be written"):
        folder(tmp_path / "out").open()


def test_a_folder_on_a_read_only_system_is_one_error():
    with pytest.raises(CrystallmError, match="cannot be written") as caught:
        folder("/proc/crystallm").open()
    assert "\n" not in str(caught.value)


def test_parts_are_not_results(tmp_path):
    run = folder(tmp_path)
    fill(run, [0, 2])
    assert not folder(tmp_path).finished
    assert (folder(tmp_path).has(2), folder(tmp_path).has(1)) == (True, False)


def test_a_run_in_parts_keeps_them_and_a_summary(tmp_path):
    run = RunFolder(tmp_path, {"seed": 1}, COLUMNS, parted=True)
    fill(run, [1, 0])
    with pytest.raises(InputError, match="is not finished"):
        result_files(tmp_path)
    run.finish({"crystals": 2})
    again = RunFolder(tmp_path, {"seed": 1}, COLUMNS, parted=True)
    assert again.finished
    assert again.summary() == {"crystals": 2}
    assert list(again.stream(["name"])) == [{"name": "c0"}, {"name": "c1"}]
    assert [path.name for path in result_files(tmp_path)] == ["part-00000.parquet", "part-00001.parquet"]


def test_a_run_without_a_folder_is_kept_in_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = RunFolder(None, {"seed": 1}, COLUMNS)
    fill(run, [1, 0])
    run.write_file("a.txt", b"a")
    assert [row["unit"] for row in run.rows()] == [0, 1]
    run.finish(rows=[{"unit": 7}])
    assert (run.finished, run.rows()) == (True, [{"unit": 7}])
    assert list(tmp_path.iterdir()) == []


def test_the_configuration_holds_what_decides_the_results():
    class Group(Options):
        seed: int = 0
        device: Annotated[str, NOT_DECIDING] = "auto"

    config = RunFolder.configuration("relax", Group(seed=2), digest="7f")
    assert config == {"command": "relax", "version": __version__, "seed": 2, "digest": "7f"}


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    run = folder(tmp_path)
    run.open()
    fill(run, [0])
    before = files(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # a file may grow to 1,000 bytes, no more
    try:
        with pytest.raises(CrystallmError, match="cannot be written: File too large"):
            run.write_unit(1, [{"unit": 1, "name": "x" * 5000, "energy": 0.0}], {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path) == before
    assert folder(tmp_path).done() == [0]


def test_damaged_files_are_named(tmp_path):
    run = folder(tmp_path)
    run.open()
    fill(run, [0])
    (tmp_path / "parts" / "00000.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(CrystallmError, match="00000.parquet is damaged"):
        run.rows()
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(CrystallmError, match="run.json is broken"):
        folder(tmp_path).open()


def test_the_configuration_is_kept_as_json(tmp_path):
    folder(tmp_path, {"seed": 1, "requests": [("TiO2", 2)]}).open()
    assert json.loads((tmp_path / "run.json").read_text()) == {"seed": 1, "requests": [["TiO2", 2]]}
    folder(
        tmp_path, {"seed": 1, "requests": [("TiO2", 2)]}
    ).open()  # and is the same question when asked again


def test_one_process_at_a_time_works_on_a_run(tmp_path):
    first, second = folder(tmp_path), folder(tmp_path)
    with first.held():
        with first.held():  # nested
            fill(first, [0])
        with pytest.raises(CrystallmError, match="another process writes"), second.held():
            pytest.fail("both hold it")
    with second.held():
        assert second.done() == [0]
    with folder(None).held():
        pass


def test_a_folder_removed_during_a_run_is_an_error(tmp_path):
    run = folder(tmp_path / "run")
    fill(run, [0])
    shutil.rmtree(tmp_path / "run")
    for write in (lambda: fill(run, [1]), run.finish):
        with pytest.raises(CrystallmError, match=r"run\.json' is gone"):
            write()
    assert not (tmp_path / "run").exists()
