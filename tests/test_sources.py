"""Whatever people have is read, or refused by name; nothing is executed and nothing leaves its place."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile

import pytest

from crystallm import sources
from crystallm.errors import InputError
from crystallm.sources import Entry

CIFS = {"a": "data_a\n", "b": "data_b\n", "deep/c": "data_c\n"}


def as_folder(tmp_path):
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    for name, text in CIFS.items():
        (folder / f"{name}.cif").write_text(text)
    (folder / "notes.txt").write_text("no crystal")
    return folder


def as_tar(tmp_path):
    path = tmp_path / "all.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(as_folder(tmp_path), arcname="")
    return path


def as_zip(tmp_path):
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in CIFS.items():
            archive.writestr(f"{name}.cif", text)
        archive.writestr("notes.txt", "no crystal")
    return path


def as_csv(tmp_path):
    path = tmp_path / "all.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("material_id,cif\n" + "".join(f'{name},"{text}"\n' for name, text in CIFS.items()))
    return path


def as_parquet(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    path = tmp_path / "all.parquet"
    parquet.write_table(pa.table({"id": list(CIFS), "cif": list(CIFS.values())}), path)
    return path


@pytest.mark.parametrize("make", [as_folder, as_tar, as_zip, as_csv, as_parquet])
def test_every_kind_gives_the_same_crystals(tmp_path, make):
    found = list(sources.read(make(tmp_path)))
    assert sorted(found, key=lambda entry: entry.id) == [Entry(name, text) for name, text in CIFS.items()]


def test_a_single_cif_is_a_collection(tmp_path):
    path = tmp_path / "one.CIF.gz"
    path.write_bytes(gzip.compress(b"data_one\n"))
    assert list(sources.read(path)) == [Entry("one", "data_one\n")]


def test_results_of_ours_are_taken_by_request_and_sample(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    rows = {"request": [0, 1], "sample": [3, 4], "cif": ["data_x\n", None], "text": ["", "broken text"]}
    parquet.write_table(pa.table(rows), tmp_path / "results.parquet")
    (tmp_path / "cifs").mkdir()
    (tmp_path / "cifs" / "x.cif").write_text("data_x\n")
    assert list(sources.read(tmp_path)) == [Entry("0-3", "data_x\n"), Entry("1-4", "broken text")]


def test_what_cannot_be_read_is_named_and_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("crystallm.sources.folder.MAX_BYTES", 1000)
    (tmp_path / "a-empty.cif").write_text(" \n")
    (tmp_path / "b-binary.cif").write_bytes(bytes(range(256)))
    (tmp_path / "c-large.cif").write_text("x" * 1001)
    (tmp_path / "d-packed.cif.gz").write_bytes(gzip.compress(b"x" * 100_000))
    (tmp_path / "e-torn.cif.gz").write_bytes(gzip.compress(b"data_x\n" * 100)[:-20])
    (tmp_path / "f-latin.cif").write_bytes("data_x # Müller\n".encode("latin-1"))
    found = {entry.id: entry for entry in sources.read(tmp_path)}
    assert "empty" in found["a-empty"].problem
    assert "binary" in found["b-binary"].problem
    assert "more than" in found["c-large"].problem
    assert "unpacks to more" in found["d-packed"].problem
    assert "cannot be read" in found["e-torn"].problem
    assert found["f-latin"] == Entry("f-latin", "data_x # Müller\n")


def hostile_tar(path):
    with tarfile.open(path, "w:gz") as archive:
        for name in ("/etc/a.cif", "../../b.cif", "C:/c.cif", "good.cif"):
            member = tarfile.TarInfo(name)
            member.size = 7
            archive.addfile(member, io.BytesIO(b"data_x\n"))
        link = tarfile.TarInfo("link.cif")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


def test_names_that_leave_the_archive_and_links_are_not_followed(tmp_path):
    found = list(sources.read(hostile_tar(tmp_path / "x.tgz")))
    problems = [entry.problem for entry in found]
    assert ["absolute" in p for p in problems] == [True, False, True, False, False]
    assert "leaves the archive" in problems[1]
    assert found[3] == Entry("good", "data_x\n")
    assert "link" in problems[4]


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_bombs_are_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("crystallm.sources.archive.FREE_BYTES", 10_000)
    path = tmp_path / f"bomb.{kind}"
    content = b"0" * 4_000_000
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("bomb.cif", content)
    else:
        with tarfile.open(path, "w:gz") as archive:
            member = tarfile.TarInfo("bomb.cif")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(InputError, match="unpacks to more than 200 times"):
        list(sources.read(path))


@pytest.mark.parametrize("name", ["torn.tar.gz", "torn.zip", "torn.parquet", "torn.csv.gz"])
def test_damaged_files_are_one_line(tmp_path, name):
    made = {"tar.gz": as_tar, "zip": as_zip, "parquet": as_parquet, "csv.gz": as_csv}[name.partition(".")[2]]
    content = made(tmp_path).read_bytes()
    path = tmp_path / name
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(InputError, match="torn"):
        list(sources.read(path))


@pytest.mark.parametrize("name", ["nothing.cif", "crystals.doc", "empty"])
def test_what_is_no_collection_is_refused(tmp_path, name):
    (tmp_path / "crystals.doc").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=name):
        list(sources.read(tmp_path / name))


def test_an_archive_without_a_crystal_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("notes.txt", "no crystal")
    with pytest.raises(InputError, match="holds no CIF"):
        list(sources.read(tmp_path / "x.zip"))
