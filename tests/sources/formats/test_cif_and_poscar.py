"""Archives, prompts, tables, frames, JSON: what is hostile or odd in each kind of file."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile

import pytest

from crystallm.sources import collection, parsing
from crystallm.sources.entry import Entry
from kinds import equal, refused

# -- archives and prompts ------------------------------------------------------------------------------------


def tarred(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                member.type, member.linkname = content
                archive.addfile(member)
    return path


LINKS = {"soft": (tarfile.SYMTYPE, "/etc/passwd"), "hard": (tarfile.LNKTYPE, "good.cif")}


def test_names_that_leave_the_archive_and_links_are_not_followed(tmp_path):
    text = b"data_x\n"
    members = dict.fromkeys(("/etc/a.cif", "../../b.cif", "C:/c.cif", "good.cif"), text)
    members |= {f"{kind}.cif": link for kind, link in LINKS.items()}
    found = list(collection.read(tarred(tmp_path / "x.tgz", members)))
    problems = [entry.problem for entry in found]
    assert ["absolute" in p for p in problems] == [True, False, True, False, False, False]
    assert "leaves the archive" in problems[1]
    assert found[3] == Entry("good", "data_x\n")
    assert ["link" in p for p in problems[4:]] == [True, True]
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("../b.cif", text)
        link = zipfile.ZipInfo("soft.cif")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert [entry.text for entry in collection.read(tmp_path / "x.zip")] == [None, None]


@pytest.mark.parametrize(
    "name", ["x.zip", "x.tar.gz", "x.csv.gz", "x.json.gz", "x.jsonl.gz", "x.xyz.gz", "x.pkl.gz"]
)
def test_bombs_are_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr("crystallm.sources.streams.FREE_BYTES", 10_000)
    path = tmp_path / name
    size = 4_000_000
    if name == "x.zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("bomb.cif", b"0" * size)
    elif name == "x.tar.gz":
        tarred(path, {"bomb.cif": b"0" * size})
    else:
        content = {
            "csv": b"cif\n" + b"0\n" * (size // 2),
            "json": b"[" + b"0," * (size // 2),
            "jsonl": b"{}\n" * (size // 3),
            "xyz": b"1\n\nH 0 0 0\n" * (size // 11),
            "pkl": b"]" + b"K\x01a" * (size // 3) + b".",
        }[name.split(".")[1]]
        path.write_bytes(gzip.compress(content))
    assert "unpacks to more than 200 times" in refused(path)


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path):
    path = tmp_path / "x.tar"
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 10**9
    path.write_bytes(header.tobuf() + b"0" * 10_000)
    assert "a header of 1000 MB" in refused(path)


def test_an_archive_without_a_crystal_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("notes.txt", "no crystal")
    assert "holds no CIF" in refused(tmp_path / "x.zip")


# -- tables and frames ---------------------------------------------------------------------------------------


def test_a_table_tells_ids_and_splits(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("id,split,cif\nq,val,data_q\n,test,data_1\nr,,\n")
    assert list(collection.read(path)) == [
        Entry("q", "data_q", split="val"),
        Entry("1", "data_1", split="test"),
        Entry("r", None, "the row has no text"),
    ]


def test_a_frame_may_be_unreadable_and_stops_nothing(tmp_path):
    frame = '1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3 id={}\nPo 0 0 0\n'
    (tmp_path / "x.xyz").write_text(
        frame.format(7) + "\n1\nno cell\nHe 0 0 0\n" + frame.format('"a b"') + "\n"
    )
    first, second, third = collection.read(tmp_path / "x.xyz")
    assert (first.id, second.id, third.id) == ("7", "1", "a b")
    assert "no cell" in second.problem
    assert parsing.structure(third.text, "extxyz").volume == pytest.approx(27)


@pytest.mark.parametrize(
    "text", ["99999999999\n", "-1\n\n", "1\n", "2\nLattice\nPo 0 0 0\n", "x" * 2_000_000]
)
def test_frames_without_end_are_refused(tmp_path, text):
    (tmp_path / "x.extxyz").write_text(text)
    refused(tmp_path / "x.extxyz")


def test_a_frame_may_say_anything_else():
    frame = (
        "1\nforces_JSON=[[ energy=x y pbc='T T T' config_type=\"a b\" Lattice = '4 0 0 0 3 0 0 0 3' "
        "Properties=species:S:1:pos:R:3:forces:R:3:site:S:1\nPo 2 0 0 1 1 1 A_1\n"
    )
    found = parsing.structure(frame, "extxyz")
    assert found.volume == pytest.approx(36)
    assert found[0].frac_coords.tolist() == [0.5, 0, 0]
    assert not found.site_properties


# -- JSON ----------------------------------------------------------------------------------------------------


def test_classes_that_json_names_are_never_loaded(tmp_path, textbook_structures, monkeypatch):
    def loaded(*_, **__):
        raise AssertionError("a class was loaded")

    monkeypatch.setattr("monty.json.MontyDecoder.process_decoded", loaded)
    monkeypatch.setattr("pymatgen.core.Structure.from_dict", loaded)
    bad = {"@module": "os", "@class": "system", "@version": "1", "args": ["touch marker"], "command": "x"}
    record = textbook_structures["rutile"].as_dict() | {
        "@module": "os",
        "@class": "system",
        "properties": bad,
    }
    for site in record["sites"]:
        site["properties"] = bad
        site["species"][0] |= {"@module": "os", "@class": "system", "oxidation_state": 3}
    (tmp_path / "x.json").write_text(json.dumps([record, bad, {"structure": bad}]))
    first, *others = collection.read(tmp_path / "x.json")
    equal(parsing.structure(first.text, first.format), textbook_structures["rutile"])
    assert [entry.problem for entry in others] == ["no crystal is in it"] * 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", "[" * 100_000, "nested too deep"),
        ("x.json", '[{"a":' * 100_000, "nested too deep"),
        ("x.jsonl", '{"a":' * 100_000 + "\n", "nested too deep"),
        ("x.json", '[{"id": "' + "x" * 6_000_000, "more than 5 MB"),
        ("x.jsonl", "x" * 6_000_000, "more than 5 MB"),
        ("x.json", "[1" + "0" * 5000 + "]", "cannot be read"),
        ("x.json", "[{}, {}]", "holds no crystal"),
        ("x.json", "{}", "holds no crystal"),
        ("x.json", '{"a": 1} {"b": 2}', "more than one JSON value"),
        ("x.json", '{"a" 1}', "in place of"),
        ("x.json", "[1 2]", "in place of a comma"),
        ("x.json", '"data_x"', "it begins with"),
        ("x.jsonl", '{"loss": 1}\n', "holds no crystal"),
    ],
)
def test_json_of_other_things_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    assert message in refused(tmp_path / name)


def test_json_is_the_same_wherever_it_is_cut_into_chunks(tmp_path, monkeypatch):
    items = [
        {"id": f"ä{i}", "cif": f"_cell_length_a {i}", "x": [1.5e-3, -0.25, True, None]} for i in range(20)
    ]
    text = json.dumps(
        {"e": -12.5e-3, "n": 123456, "data": items, "b": True, "z": 1.25}, ensure_ascii=False, indent=1
    )
    (tmp_path / "x.json").write_text(text, encoding="utf-8")
    expected = [Entry(f"ä{i}", f"_cell_length_a {i}") for i in range(20)]
    for chunk in (1, 2, 3, 7, 50):
        monkeypatch.setattr("crystallm.sources.formats.json_stream.CHUNK", chunk)
        assert list(collection.read(tmp_path / "x.json")) == expected


def test_lines_that_are_no_json_stop_nothing(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"cif": "data_x"}\n{"cif"\n{"cif": "data_\\ud800"}\n[]\n')
    found = list(collection.read(tmp_path / "x.jsonl"))
    assert [entry.text for entry in found] == ["data_x", None, "data_?", None]
    assert [entry.id for entry in found] == ["0", "1", "2", "3"]
