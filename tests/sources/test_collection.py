"""Whatever people have is read, every kind alike, and what is damaged is said in one line."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import tarfile
import tracemalloc
from dataclasses import asdict

import numpy as np
import pytest

from crystallm.errors import InputError
from crystallm.sources import collection, parsing
from crystallm.sources.entry import Entry
from kinds import IDS, KINDS, equal, refused, written

# -- every kind ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_gives_the_same_crystals(tmp_path, textbook_structures, name):
    book = dict(sorted(textbook_structures.items()))
    found = list(collection.read(written(tmp_path, name, book)))
    assert [entry.problem for entry in found] == [""] * len(book)
    if KINDS[name][1] == "blocks":
        formulas = [structure.composition.reduced_formula for structure in book.values()]
        expected = [f"one/{key}_{formula}" for key, formula in zip(book, formulas, strict=True)]
    else:
        expected = [IDS[KINDS[name][1]](number, key) for number, key in enumerate(book)]
    assert [entry.id for entry in found] == expected
    for entry, structure in zip(found, book.values(), strict=True):
        again = Entry(**json.loads(json.dumps(asdict(entry))))  # the way to a worker process
        equal(parsing.structure(again.text, again.format), structure)
    as_cifs = list(collection.read_cifs(tmp_path / name))
    assert [(entry.id, entry.format, entry.split) for entry in as_cifs] == [
        (entry.id, "cif", entry.split) for entry in found
    ]
    for entry, structure in zip(as_cifs, book.values(), strict=True):
        equal(parsing.structure(entry.text), structure)


STREAMED = [
    "all.tar.gz", "cif.csv.gz", "structure.csv", "cif.parquet", "struct.parquet", "all.extxyz", "all.xyz.gz",
    "all.db", "list.json", "named.json.gz", "mapping.json", "optimade.json", "structures.jsonl",
    "optimade.jsonl", "one.cif",
]  # fmt: skip


@pytest.mark.parametrize("name", STREAMED)
def test_memory_does_not_grow_with_the_collection(tmp_path, textbook_structures, name):
    structures = list(textbook_structures.values())
    peaks = []
    for n in (200, 2000):
        place = tmp_path / str(n)
        place.mkdir()
        path = written(place, name, {f"m{i}": structures[i % 5] for i in range(n)})
        next(collection.read(path))  # what is imported on the way
        tracemalloc.start()
        assert sum(entry.text is not None for entry in collection.read(path)) == n
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0] + 2_000_000, peaks


def test_a_parquet_file_of_one_row_group_is_not_held(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    random = np.random.default_rng(1)
    path = tmp_path / "x.parquet"
    table = pa.table({"cif": [random.bytes(2000).hex() for _ in range(10_000)]})
    parquet.write_table(table, path, row_group_size=10_000, compression="none")
    del table
    before = pa.total_allocated_bytes()
    most = max(pa.total_allocated_bytes() - before for _ in collection.read(path))
    assert most < path.stat().st_size / 2, most


LAZY = [
    "all.tar", "all.tar.gz", "cif.csv", "cif.csv.gz", "all.extxyz", "list.json", "named.json.gz",
    "mapping.json", "optimade.json", "structures.jsonl", "cifs.jsonl.gz",
]  # fmt: skip


@pytest.mark.parametrize("name", LAZY)
def test_the_first_crystals_come_before_the_last_are_read(tmp_path, textbook_structures, name):
    structures = list(textbook_structures.values())
    book = {f"m{i}": structures[i % 5].copy() for i in range(200)}
    random = np.random.default_rng(1)
    for structure in book.values():  # else it packs to nothing, and is unpacked at once
        structure.translate_sites(list(range(len(structure))), random.random(3))
    path = written(tmp_path, name, book)
    content = path.read_bytes()
    cut = content.rfind(b"\n", 0, -1000) + 3 if "gz" not in name else 0  # not behind a digit
    path.write_bytes(content[: cut if cut > 3 else -1000])
    first = list(itertools.islice(collection.read(path), 20))
    assert len(first) == 20
    assert all(entry.text for entry in first)
    if name != "all.tar":  # ends in 10,240 bytes of nothing
        assert "is it truncated?" in refused(path)


@pytest.mark.parametrize("name", [name for name in KINDS if "." in name and name != "one.cif"])
def test_every_kind_says_that_it_is_cut(tmp_path, textbook_structures, name):
    path = written(tmp_path, name, textbook_structures)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])
    assert "is it truncated?" in refused(path)


@pytest.mark.parametrize("name", [name for name in KINDS if "." in name and name != "one.cif"])
@pytest.mark.parametrize(
    "content", [b"\0" * 5000, bytes(range(256)) * 20, b"<html>Not found</html>\n" * 100, b""]
)
def test_what_is_of_another_kind_is_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name)


@pytest.mark.parametrize("name", [name for name in KINDS if "." in name])
def test_damage_anywhere_is_one_line_or_an_entry(tmp_path, textbook_structures, name):
    path = written(tmp_path, name, textbook_structures)
    content = path.read_bytes()
    random = np.random.default_rng(7)
    for _ in range(20):
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[random.integers(len(damaged), size=random.integers(1, 6))] = random.integers(256)
        path.write_bytes(damaged.tobytes()[: random.integers(len(damaged) // 2, 2 * len(damaged))])
        try:
            for entry in collection.read(path):
                assert (entry.text is None) == bool(entry.problem)
        except InputError as error:
            said = str(error)
            assert name in said
            assert len(said.splitlines()) == 1


# -- folders and single files --------------------------------------------------------------------------------


def test_a_folder_is_read_by_the_names_in_it(tmp_path, textbook_structures):
    rocksalt = textbook_structures["rocksalt"]
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "CONTCAR").write_text(rocksalt.to(fmt="poscar"))
    (tmp_path / "deep" / "POSCAR_2.gz").write_bytes(gzip.compress(rocksalt.to(fmt="poscar").encode()))
    (tmp_path / "b.cif").write_text("data_b\n")
    (tmp_path / "a.json").write_text(json.dumps(rocksalt.as_dict()))
    (tmp_path / "c.jsonl").write_text('{"loss": 1.5}\n' * 30)  # a log is no collection
    (tmp_path / "config.json").write_text('{"lattice": {}, "seed": {"a": 1}}')
    (tmp_path / "d.json.gz").write_bytes(gzip.compress(json.dumps([rocksalt.as_dict()]).encode())[:-20])
    (tmp_path / "molecule.xyz").write_text("1\nhelium\nHe 0 0 0\n")
    (tmp_path / "notes.txt").write_text("no crystal")
    found = list(collection.read(tmp_path))
    assert [(entry.id, entry.format, entry.text is None) for entry in found] == [
        ("a.json/a", "pymatgen", False),
        ("b", "cif", False),
        ("d.json.gz", "cif", True),
        ("deep/CONTCAR", "poscar", False),
        ("deep/POSCAR_2", "poscar", False),
    ]
    assert "truncated" in found[2].problem


@pytest.mark.parametrize("name", ["one.CIF.gz", "one.vasp", "POSCAR", "one.poscar.gz"])
def test_a_single_file_is_a_collection(tmp_path, textbook_structures, name):
    text = textbook_structures["rutile"].to(fmt="cif" if "CIF" in name else "poscar").encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    (found,) = collection.read(tmp_path / name)
    assert found.id == name.split(".", maxsplit=1)[0]
    equal(parsing.structure(found.text, found.format), textbook_structures["rutile"])


def test_a_large_cif_is_read_block_by_block(tmp_path, textbook_structures, monkeypatch):
    monkeypatch.setattr("crystallm.sources.formats.cif_and_poscar.MAX_BYTES", 3000)
    path = written(tmp_path, "one.cif", textbook_structures)
    found = list(collection.read(path))
    assert len(found) == 5
    for entry, structure in zip(found, textbook_structures.values(), strict=True):
        equal(parsing.structure(entry.text), structure)
    most = max(len(entry.text) for entry in found) - 1
    monkeypatch.setattr("crystallm.sources.formats.cif_and_poscar.MAX_BYTES", most)
    assert ["more than" in entry.problem for entry in collection.read(path)].count(True) == 1


def test_a_cif_of_one_crystal_is_one_entry_whatever_else_it_says(tmp_path):
    text = "data_global\n_x 1\ndata_I\nloop_\n_atom_site_fract_x\n0.1\n"
    (tmp_path / "one.cif").write_text(text)
    assert list(collection.read(tmp_path / "one.cif")) == [Entry("one", text)]


def test_results_of_ours_are_taken_by_request_and_sample(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    rows = {"request": [0, 1], "sample": [3, 4], "cif": ["data_x\n", None], "text": ["", "broken text"]}
    parquet.write_table(pa.table(rows), tmp_path / "results.parquet")
    (tmp_path / "cifs").mkdir()
    (tmp_path / "cifs" / "x.cif").write_text("data_x\n")
    assert list(collection.read(tmp_path)) == [Entry("0-3", "data_x\n"), Entry("1-4", "broken text")]


def test_results_of_ours_are_called_as_their_files_are(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    files = ["TiO2-sg136-0003.cif", "00002/00001-TiO2-sg136-0004.cif", None]
    rows = {"request": [0, 1, 1], "sample": [3, 4, 5], "cif": ["x", "y", "z"], "file": files}
    parquet.write_table(pa.table(rows), tmp_path / "results.parquet")
    names = ["TiO2-sg136-0003", "00001-TiO2-sg136-0004", "1-5"]
    assert [entry.id for entry in collection.read(tmp_path)] == names


def test_a_data_set_of_ours_is_not_read_again(tmp_path):
    (tmp_path / "dataset.json").write_text("{}")
    (tmp_path / "x.cif").write_text("data_x\n")
    assert "prepared already" in refused(tmp_path)


def test_what_cannot_be_read_is_named_and_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("crystallm.sources.formats.cif_and_poscar.MAX_BYTES", 1000)
    (tmp_path / "a-empty.cif").write_text(" \n")
    (tmp_path / "b-binary.cif").write_bytes(bytes(range(256)))
    (tmp_path / "c-large.cif").write_text("x" * 1001)
    (tmp_path / "d-packed.cif.gz").write_bytes(gzip.compress(b"x" * 100_000))
    (tmp_path / "e-torn.cif.gz").write_bytes(gzip.compress(b"data_x\n" * 100)[:-20])
    (tmp_path / "f-latin.cif").write_bytes("data_x # Müller\n".encode("latin-1"))
    found = {entry.id: entry for entry in collection.read(tmp_path)}
    assert "empty" in found["a-empty"].problem
    assert "binary" in found["b-binary"].problem
    assert "more than" in found["c-large"].problem
    assert "unpacks to more" in found["d-packed"].problem
    assert "cannot be read" in found["e-torn"].problem
    assert found["f-latin"] == Entry("f-latin", "data_x # Müller\n")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_what_is_no_file_is_named_and_stops_nothing(tmp_path, textbook_structures):
    textbook_structures["rocksalt"].to(str(tmp_path / "a.cif"))
    (tmp_path / "loop.cif").symlink_to("loop.cif")
    (tmp_path / "lost.json").symlink_to("nowhere")
    (tmp_path / "above").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.cif")
    found = {entry.id: entry.problem for entry in collection.read(tmp_path)}
    nowhere = "a link that leads to no file"
    pipe = "a pipe, a socket or a device, which is not read"
    assert found == {"a": "", "loop": nowhere, "lost.json": nowhere, "pipe": pipe}


def test_names_that_are_not_utf_8_are_cleaned(tmp_path, textbook_structures):
    text = textbook_structures["rocksalt"].to(fmt="cif").encode()
    (tmp_path / "folder").mkdir()
    try:
        (tmp_path / "folder" / os.fsdecode(b"caf\xe9.cif")).write_bytes(text)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    with tarfile.open(tmp_path / "latin.tar", "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as archive:
        member = tarfile.TarInfo("café.cif")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    for name in ("folder", "latin.tar"):
        (entry,) = collection.read(tmp_path / name)
        assert entry.id == "caf?"
        assert entry.text == text.decode()


@pytest.mark.parametrize("name", ["nothing.cif", "crystals.doc", "empty"])
def test_what_is_no_collection_is_refused(tmp_path, name):
    (tmp_path / "crystals.doc").write_text("x")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / name)


def test_devices_pipes_and_links_to_themselves_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.cif")
    (tmp_path / "loop.cif").symlink_to("loop.cif")
    for place, why in (
        (tmp_path / "pipe.cif", "is a device or a pipe"),
        ("/dev/zero", "is a device or a pipe"),
        (tmp_path / "loop.cif", "no file or folder"),
    ):
        with pytest.raises(InputError, match=why):
            list(collection.read(place))
