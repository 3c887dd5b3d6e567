"""Collections become data sets: no row vanishes, a kill costs nothing, bad input is told before any work."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from crystallm.datasets import prepare, shards, writer
from crystallm.datasets import report as datasets_report
from crystallm.datasets.options import PrepareOptions
from crystallm.errors import CrystallmError, InputError
from crystallm.execution import pool as execution_pool
from crystallm.execution import tasks
from crystallm.language import get_language
from crystallm.orbits import language as orbits_language
from crystallm.orbits import vocabulary
from crystallm.sources import splits as sources_splits
from prepared import (
    ALL,
    BROKEN,
    all_bytes,
    calling,
    contents,
    counting,
    crystals,
    rows_of,
    write_csv,
    write_long,
)
from real_crystals import published

# --- what is read ---


@pytest.mark.parametrize("name", ["book.csv", "book.csv.gz", "book.parquet"])
def test_a_collection_becomes_a_data_set(tmp_path, cifs, textbook_structures, name):
    path = tmp_path / name
    if path.suffix == ".parquet":
        parquet.write_table(pa.table({"id": list(cifs), "cif": list(cifs.values()), "gap": [1.0] * 5}), path)
    else:
        write_csv(path, cifs.items())
    done = []
    report = prepare.prepare([str(path)], tmp_path / "data", ALL, progress=counting(done))
    texts = [orbits_language.OrbitsLanguage().encode(structure) for structure in textbook_structures.values()]
    assert crystals(tmp_path / "data", "train") == texts
    assert crystals(tmp_path / "data", "val") == crystals(tmp_path / "data", "test") == []
    assert (report.language, report.read, report.written, report.duplicates) == ("orbits", 5, 5, 0)
    assert report.crystals == {"train": 5, "val": 0, "test": 0}
    assert report.tokens == {"train": sum(map(len, texts)), "val": 0, "test": 0}
    assert report.rejected == report.reasons == {}
    assert done == [5]
    found = contents(tmp_path / "data")
    ends = ("bin", "idx.npy", "properties.npy")
    assert set(found) == {
        *(f"{split}.{end}" for split in sources_splits.SPLITS for end in ends),
        "rows.parquet", "rejected.parquet", "report.json", "report.html", "dataset.json", "run.json",
    }  # fmt: skip
    assert [(row["id"], row["source"], row["split"], row["tokens"]) for row in found["rows.parquet"]] == [
        (name_, name, "train", len(text)) for name_, text in zip(cifs, texts, strict=True)
    ]
    assert [row["formula"] for row in found["rows.parquet"]] == ["NaCl", "TiO2", "SrTiO3", "ZnS", "C"]
    assert [row["cell"] for row in found["rows.parquet"]] == ["Na4Cl4", "Ti2O4", "Sr1Ti1O3", "Zn2S2", "C8"]
    assert [row["space_group"] for row in found["rows.parquet"]] == [225, 136, 221, 186, 227]
    assert found["rejected.parquet"] == []
    facts = json.loads(found["dataset.json"])
    assert facts["language"] == "orbits"
    assert facts["vocab_size"] == len(vocabulary.vocabulary())
    assert facts["crystals"] == report.crystals
    assert facts["tokens"] == report.tokens


def test_the_published_texts_come_out(tmp_path):
    """500 real structures, their tokens made with the original code; three groups have no token there."""
    rows = published()
    path = write_csv(tmp_path / "golden.csv", [(str(i), row["cif"]) for i, row in enumerate(rows)])
    choices = PrepareOptions(language="cif", split_by="given", max_length=10_000, min_distance=0)
    report = prepare.prepare([path], tmp_path / "data", choices)
    assert report.rejected == {}
    assert crystals(tmp_path / "data", "train") == [row["ids"] for row in rows]


def test_a_suffix_decides_the_split_then_the_column_then_training(tmp_path, cifs):
    splits = ["val", "", "test", "train", "Validation"]
    rows = [(name, cif, split) for (name, cif), split in zip(cifs.items(), splits, strict=True)]
    mixed = write_csv(tmp_path / "mixed.csv", rows, ("id", "cif", "split"))
    plain = write_csv(tmp_path / "plain.csv", list(cifs.items())[:1])
    folder = tmp_path / "data"
    prepare.prepare([mixed, f"{mixed}=test", plain], folder)
    found = [row["split"] for row in contents(folder)["rows.parquet"]]
    assert found == ["val", "train", "test", "train", "val", *["test"] * 5, "train"]
    assert {split: len(shards.load(folder, split)) for split in sources_splits.SPLITS} == {
        "train": 3,
        "val": 2,
        "test": 6,
    }


def test_an_id_may_be_zero_and_a_name_may_hold_a_sign(tmp_path, cifs):
    path = tmp_path / "a=b.parquet"
    parquet.write_table(pa.table({"material_id": [0, 7], "cif": list(cifs.values())[:2]}), path)
    assert [(row["id"], row["split"]) for row in sources_splits.read_rows(str(path))] == [
        ("0", ""),
        ("7", ""),
    ]
    assert [row["split"] for row in sources_splits.read_rows(f"{path}=val")] == ["val", "val"]


def test_crystals_without_tokens_are_a_collection_again(tmp_path, cifs):
    path = write_csv(tmp_path / "book.csv", cifs.items())
    whole = prepare.prepare([path], tmp_path / "clean", PrepareOptions(language="none", split_by="given"))
    assert (whole.written, whole.vocab_size, whole.tokens["train"]) == (5, 0, 0)
    assert not (tmp_path / "clean" / "train.bin").exists()
    found = contents(tmp_path / "clean")["rows.parquet"]
    assert {row["id"]: row["cif"] for row in found} == cifs
    again = str(tmp_path / "clean" / "rows.parquet")
    prepare.prepare([again], tmp_path / "tokens")
    prepare.prepare([path], tmp_path / "straight", ALL)
    assert crystals(tmp_path / "tokens", "train") == crystals(tmp_path / "straight", "train")


def test_crystals_can_be_standardised_without_tokens(tmp_path, textbook_structures):
    primitive = {name: s.get_primitive_structure() for name, s in textbook_structures.items()}
    path = write_csv(tmp_path / "book.csv", [(name, s.to(fmt="cif")) for name, s in primitive.items()])
    choices = PrepareOptions(language="none", split_by="given", standardize=True)
    prepare.prepare([path], tmp_path / "clean", choices)
    from crystallm.cif import structure_reader

    for row in contents(tmp_path / "clean")["rows.parquet"]:
        assert (
            len(structure_reader.structure(row["cif"]))
            == len(textbook_structures[row["id"]])
            == row["n_atoms"]
        )


# --- what is refused ---


@pytest.fixture
def shelf(tmp_path, cifs):
    """A folder of inputs that are wrong, each in its way."""
    rows = list(cifs.items()) * 80
    packed = write_csv(tmp_path / "good.csv.gz", rows)
    whole = (tmp_path / "good.csv.gz").read_bytes()
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    (tmp_path / "head.csv").write_text("id,cif\n")
    (tmp_path / "table.xlsx").write_text("")
    write_csv(tmp_path / "other.csv", [("a", "b")], ("id", "text"))
    write_csv(tmp_path / "splits.csv", [("a", "b", "train"), ("a", "b", "holdout")], ("id", "cif", "split"))
    return packed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.csv", "no file or folder .*missing.csv"),
        ("missing.csv=val", "no file or folder .*missing.csv'"),
        ("good.csv.gz=other", "no split 'other'; give one of train, val, test"),
        ("good.csv.gz=", "no file"),
        ("table.xlsx", "no collection by its name"),
        ("head.csv", "holds no row"),
        ("other.csv", "columns: id, text"),
        ("cut.parquet", "cut.parquet"),
    ],
)
def test_an_input_that_cannot_be_read_writes_nothing(tmp_path, shelf, name, message):
    before = sorted(tmp_path.iterdir())
    done = []
    for inputs in ([name], ["good.csv.gz", name]):  # a wrong last input is told before the first is treated
        with pytest.raises(InputError, match=message) as caught:
            prepare.prepare([str(tmp_path / i) for i in inputs], tmp_path / "data", progress=counting(done))
        assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before
    assert done == []


@pytest.mark.parametrize(
    ("name", "message"), [("cut.csv.gz", "is it truncated?"), ("splits.csv", "row 1: no split 'holdout'")]
)
def test_an_input_that_breaks_off_leaves_no_data_set(tmp_path, shelf, name, message):
    with pytest.raises(InputError, match=message) as caught:
        prepare.prepare([str(tmp_path / name)], tmp_path / "data")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no data set"):
        shards.load(tmp_path / "data", "train")


@pytest.mark.parametrize(
    ("place", "kind", "message"),
    [
        ("full", InputError, "exists and is not empty: give a new folder"),
        ("file", CrystallmError, "is a file"),
        ("file/data", CrystallmError, "is a file"),
    ],
)
def test_a_place_that_is_taken_is_told_before_any_work(tmp_path, cifs, place, kind, message):
    path = write_csv(tmp_path / "book.csv", cifs.items())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "old").write_text("old")
    (tmp_path / "file").write_text("")
    done = []
    with pytest.raises(kind, match=message):
        prepare.prepare([path], tmp_path / place, progress=counting(done))
    assert done == []
    assert (tmp_path / "full" / "old").read_text() == "old"


def test_a_folder_without_the_right_to_write_is_told_first(tmp_path, cifs, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)  # the tests may run as one who has every right
    path = write_csv(tmp_path / "book.csv", cifs.items())
    with pytest.raises(CrystallmError, match="cannot be written"):
        prepare.prepare([path], tmp_path / "data")
    assert not (tmp_path / "data").exists()


# --- the steps over all rows ---


@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_read_is_written_and_refused_and_duplicates(tmp_path_factory, cifs, data):
    pool = {**cifs, **{name: text for name, (text, _, _) in BROKEN.items()}}
    names = data.draw(st.lists(st.sampled_from(sorted(pool)), min_size=1, max_size=12))
    folder = tmp_path_factory.mktemp("rows")
    path = write_csv(folder / "rows.csv", [(f"{i}", pool[name]) for i, name in enumerate(names)])
    choices = PrepareOptions(
        language=data.draw(st.sampled_from(["orbits", "cif", "none"])),
        deduplicate=data.draw(st.sampled_from(["formula-group", "none"])),
        split_by=data.draw(st.sampled_from(["given", "random", "formula"])),
        max_length=data.draw(st.sampled_from([20, 400])),
    )
    report = prepare.prepare([path], folder / "data", choices)
    assert report.read == len(names) == report.written + sum(report.rejected.values()) + report.duplicates
    found = contents(folder / "data")
    ids = [row["id"] for name in ("rows.parquet", "rejected.parquet") for row in found[name]]
    assert sorted(ids, key=int) == [str(i) for i in range(len(names))]


# --- processes, kills, clusters ---

SCRIPT = """
import contextlib, sys, time
from crystallm.datasets import prepare
from crystallm.datasets.options import PrepareOptions
prepare.UNIT_ROWS = 7
path, out, workers, most = sys.argv[1:]
told = []

@contextlib.contextmanager
def progress(_task, _total, done):
    yield report

def report(n):
    told.append(n)
    print(n, flush=True)
    if len(told) == int(most):
        time.sleep(600)  # to be killed, however long that takes

prepare.prepare([path], out, PrepareOptions(val_fraction=0.2), workers=int(workers), progress=progress)
"""
SOME = PrepareOptions(val_fraction=0.2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cifs):
    """What one process makes of all these rows when nothing happens."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "UNIT_ROWS", 7)
        prepare.prepare([write_long(folder, cifs)], folder / "data", SOME)
    return all_bytes(folder / "data")


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_killed_run_started_again_ends_with_the_same_bytes(tmp_path, long, whole, n_workers, monkeypatch):
    for told in (3, 6):
        arguments = (long, tmp_path / "data", n_workers, told + 2)
        command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
        run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        lines = [run.stdout.readline() for _ in range(told)]
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
        assert all(lines)
    assert (tmp_path / "data" / "parts").is_dir()
    monkeypatch.setattr(prepare, "UNIT_ROWS", 7)
    done = []
    prepare.prepare([long], tmp_path / "data", SOME, workers=n_workers, progress=counting(done))
    assert done == sorted(done)
    assert done[-1] == 77
    assert all_bytes(tmp_path / "data") == whole


def test_a_run_that_fails_at_the_end_is_finished(tmp_path, long, whole, monkeypatch):
    choices = SOME
    with monkeypatch.context() as patch:
        patch.setattr(writer, "html", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare.prepare([long], tmp_path / "data", choices)
    with pytest.raises(InputError, match="no data set"):
        shards.load(tmp_path / "data", "train")
    made = prepare.prepare([long], tmp_path / "data", choices)
    assert all_bytes(tmp_path / "data") == whole
    before = time.time_ns()
    report = prepare.prepare([long], tmp_path / "data", choices)  # what is there is not made again
    assert max(path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()) < before
    assert report == datasets_report.read(tmp_path / "data") == made


def test_a_begun_run_goes_on_with_the_same_question_only(tmp_path, long, cifs, monkeypatch):
    monkeypatch.setattr(prepare, "UNIT_ROWS", 7)
    done = []

    def stop(n):
        done.append(n)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare.prepare([long], tmp_path / "data", progress=calling(stop))
    with pytest.raises(InputError, match="holds another run .symprec was 0.1, now 0.2."):
        prepare.prepare([long], tmp_path / "data", PrepareOptions(symprec=0.2))
    lines = (tmp_path / "long.csv").read_text().replace("-1", "-100")
    (tmp_path / "long.csv").write_text(lines)
    with pytest.raises(InputError, match="input has changed since"):
        prepare.prepare([long], tmp_path / "data")


def test_two_processes_give_what_one_gives(tmp_path, long, whole, monkeypatch):
    monkeypatch.setattr(prepare, "UNIT_ROWS", 7)
    prepare.prepare([long], tmp_path / "two", SOME, workers=2)
    assert all_bytes(tmp_path / "two") == whole


class Losing(execution_pool.Inline):
    """Loses each unit that holds a row of this name."""

    def submit(self, function, /, task):
        if any(row["id"] == "rutile" for row in task["rows"]):
            function = fall
        return super().submit(function, task)


def fall(_task):
    raise tasks.TaskError("the process died")


def test_a_row_that_costs_its_process_costs_itself_alone(tmp_path, cifs):
    path = write_csv(tmp_path / "book.csv", cifs.items())
    report = prepare.prepare([path], tmp_path / "data", ALL, executor=Losing())
    assert report.rejected == {"failed": 1}
    refused = contents(tmp_path / "data")["rejected.parquet"]
    assert [(row["id"], row["reason"]) for row in refused] == [("rutile", "the process died")]
    assert rows_of(tmp_path / "data") == ["rocksalt", "perovskite", "wurtzite", "diamond"]


def test_a_cluster_that_loses_a_worker_gives_what_one_process_gives(tmp_path, long, whole, monkeypatch):
    distributed = pytest.importorskip("distributed")
    from crystallm.execution import cluster

    monkeypatch.setattr(prepare, "UNIT_ROWS", 7)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as local,
        cluster.connect(local.scheduler_address) as executor,
    ):
        killed = []

        def kill_one(_done):
            if not killed:
                victim = next(iter(local.workers.values()))
                killed.append(victim.pid)
                os.kill(victim.pid, signal.SIGKILL)

        prepare.prepare([long], tmp_path / "many", SOME, executor=executor, progress=calling(kill_one))
    assert killed
    assert all_bytes(tmp_path / "many") == whole


def test_memory_does_not_grow_with_the_rows(tmp_path, cifs, monkeypatch):
    """What stays of a row between the steps is some numbers: 100 bytes, not its text of 1,000."""
    import tracemalloc

    monkeypatch.setattr(prepare, "UNIT_ROWS", 50)
    peaks = []
    for n in (100, 2000):
        path = write_csv(tmp_path / f"{n}.csv", [(str(i), cifs["diamond"]) for i in range(n)])
        monkeypatch.setattr("crystallm.datasets.process_row.process_row", _cheap)
        tracemalloc.start()
        prepare.prepare(
            [path],
            tmp_path / f"data{n}",
            PrepareOptions(language="none", split_by="random", deduplicate="none"),
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 1900 * 2000


def _cheap(row, _options, *, symmetry):
    from crystallm.datasets.process_row import COLUMNS

    found = dict.fromkeys(COLUMNS) | {"step": "", "reason": "", "formula": "C", "n_atoms": 8}
    return (
        found
        | {name: row[name] for name in ("id", "source", "split")}
        | {"cif": row["text"], "properties": "{}"}
    )


# --- equivalent descriptions ---


def test_a_language_is_asked_for_its_own_tokens(tmp_path, cifs, textbook_structures):
    path = write_csv(tmp_path / "book.csv", list(cifs.items())[:2])
    prepare.prepare([path], tmp_path / "data", PrepareOptions(language="cif", split_by="given"))
    language = get_language("cif")
    assert crystals(tmp_path / "data", "train") == [
        language.encode(textbook_structures[name]) for name in ("rocksalt", "rutile")
    ]
    assert shards.load(tmp_path / "data", "train").vocab_size == 371


def test_one_process_at_a_time_prepares_a_folder(tmp_path, cifs, monkeypatch):
    long = write_long(tmp_path, cifs)

    def start_another(*_, **__):
        monkeypatch.undo()
        with pytest.raises(CrystallmError, match="another process writes"):
            prepare.prepare([long], tmp_path / "data", SOME)
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "run_units", start_another)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare([long], tmp_path / "data", SOME)
    assert prepare.prepare([long], tmp_path / "data", SOME).read == 77


def test_a_folder_removed_meanwhile_is_an_error(tmp_path, cifs, monkeypatch):
    def remove(folder, *args, **kwargs):
        made = writer.write(folder, *args, **kwargs)
        (folder / "run.json").unlink()
        return made

    monkeypatch.setattr(prepare, "writer", SimpleNamespace(write=remove))
    with pytest.raises(CrystallmError, match=r"run\.json' is gone"):
        prepare.prepare([write_long(tmp_path, cifs)], tmp_path / "data", SOME)


def test_reading_what_is_excluded_is_shown(tmp_path, cifs):
    phases = []

    @contextlib.contextmanager
    def progress(what, total, done=0):
        phases.append(what)
        yield lambda _: None

    rows = write_csv(tmp_path / "rows.csv", cifs.items())
    prepare.prepare([str(rows)], tmp_path / "data", PrepareOptions(exclude=(str(rows),)), progress=progress)
    assert phases == ["reading excluded crystals", "reading crystals"]
