"""Files of requests in all their forms."""

from __future__ import annotations

import gzip
import io
import itertools
import sys
import tracemalloc
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from crystallm.errors import CrystallmError, InputError
from crystallm.generation.interpretation import interpret
from crystallm.generation.request import Request
from crystallm.pipelines import request_files

CSV = "id,formula,z,space_group,n\na,TiO2,2,136,3\nb,NaCl,auto,,\n\nc, ZnS ,,auto,1\n"
ASKED = [
    Request(formula="TiO2", z=2, space_group="136", n=3),
    Request(formula="NaCl", z="auto", n=7),
    Request(formula="ZnS", z="auto", space_group="auto", n=1),
]


def as_parquet(path: Path, rows: list[dict[str, object]]) -> Path:
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    return path


def test_the_same_requests_are_the_same_in_any_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    rows = [
        {"formula": "TiO2", "z": "2", "space_group": 136, "n": 3},
        {"formula": "NaCl", "z": "auto", "space_group": None, "n": None},
        {"formula": "ZnS", "z": None, "space_group": None, "n": 1},
    ]
    as_parquet(tmp_path / "a.parquet", [row | {"space_group": str(row["space_group"] or "")} for row in rows])
    for name in ("a.csv", "a.csv.gz"):
        assert list(request_files.read(tmp_path / name, n=7)) == ASKED
    assert list(request_files.read(tmp_path / "a.parquet", n=7))[:2] == ASKED[:2]
    digests = {
        request_files.survey(request_files.read(tmp_path / name, n=7)) for name in ("a.csv", "a.csv.gz")
    }
    assert digests == {request_files.survey(ASKED)}
    assert (request_files.survey(ASKED).n_requests, request_files.survey(ASKED).n_crystals) == (3, 11)
    assert request_files.survey(ASKED).sha256 != request_files.survey(ASKED[::-1]).sha256


def test_a_list_may_have_conditions_beside_or_in_place_of_a_formula(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("formula,condition\nTiO2,density=4.2 band_gap=1:2\n,density=5\nZnS,\n")
    requested = [
        Request(formula="TiO2", z="auto", conditions=("density=4.2", "band_gap=1:2")),
        Request(conditions=("density=5",)),
        Request(formula="ZnS", z="auto"),
    ]
    assert request_files.read_requests(tmp_path / "a.csv", n=10) == requested
    one, other = (request_files.survey([request]) for request in (requested[0], requested[2]))
    assert one.sha256 != other.sha256
    (tmp_path / "b.csv").write_text("formula,conditions\nTiO2,density\n")
    with pytest.raises(InputError, match="line 2: condition = 'density': write density=5.2"):
        request_files.read_requests(tmp_path / "b.csv", n=10)


def test_a_list_may_name_elements_in_place_of_a_formula(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "formula,elements,space_group,allow_fewer_elements\nTiO2,,,\n,Li-Fe-O,,\n,Na-Cl,225,true\n"
    )
    asked = [
        Request(formula="TiO2", z="auto"),
        Request(elements="Li-Fe-O"),
        Request(elements="Na-Cl", space_group="225", allow_fewer_elements=True),
    ]
    assert request_files.read_requests(tmp_path / "a.csv", n=10) == asked
    (tmp_path / "b.csv").write_text("elements\nLi-Fe-O\n")
    assert request_files.read_requests(tmp_path / "b.csv", n=10) == asked[1:2]
    systems = [
        Request(elements="Li-O"),
        Request(elements="Li-S"),
        Request(elements="Li-S", allow_fewer_elements=True),
    ]
    assert len({request_files.survey([request]).sha256 for request in systems}) == 3


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("elements\nLi-Fe-O\nLi2O\n", "line 3: elements = 'Li2O' has counts or brackets"),
        ("formula,elements\nTiO2,Ti-O\n", "line 2: elements = 'Ti-O' and the formula 'TiO2'"),
        ("formula,elements,n\n,,3\n", "line 2: no formula and no elements"),
        ("element\nLi\n", "or elements in place of the formula, not 'element'"),
    ],
)
def test_bad_elements_in_a_list_are_one_line(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError, match=says) as caught:
        request_files.read_requests(tmp_path / "a.csv", n=1)
    assert "\n" not in str(caught.value)


def test_composition_is_another_name_of_formula(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("z, composition\n2,TiO2\n")
    as_parquet(tmp_path / "a.parquet", [{"composition": "TiO2", "z": 2}])
    for name in ("a.csv", "a.parquet"):
        assert list(request_files.read(tmp_path / name, n=1)) == [Request(formula="TiO2", z=2, n=1)]
    (tmp_path / "both.csv").write_text("formula,composition\nTiO2,NaCl\n")
    with pytest.raises(InputError, match="not 'formula,composition'"):
        list(request_files.read(tmp_path / "both.csv", n=1))


@pytest.mark.parametrize(
    ("content", "asked"),
    [
        (
            "Compound;Z;Space group\n# a comment\n;;\nTiO2;2;136\n;;\n",
            [Request(formula="TiO2", z=2, space_group="136", n=1)],
        ),
        ("# made by hand\n\tFormula\tn\n\tNaCl\t3\n", [Request(formula="NaCl", z="auto", n=3)]),
        ("chemical formula,samples,,\nTiO2,4,,\n", [Request(formula="TiO2", z="auto", n=4)]),
    ],
)
def test_spreadsheets_write_csv_their_way(tmp_path: Path, content: str, asked: list[Request]) -> None:
    (tmp_path / "a.csv").write_text(content)
    assert list(request_files.read(tmp_path / "a.csv", n=1)) == asked


def test_comments_and_empty_rows_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("# a list\n\nTiO2  # rutile\n \nNaCl\n")
    assert [r.formula for r in request_files.read_requests(tmp_path / "a.txt", n=1)] == ["TiO2", "NaCl"]
    (tmp_path / "a.csv").write_text("formula,z\n,\nTiO2,2\n , \n")
    assert [r.formula for r in request_files.read_requests(tmp_path / "a.csv", n=1)] == ["TiO2"]
    (tmp_path / "b.csv").write_text("formula,z\n,,,x\n")
    with pytest.raises(InputError, match="line 2: more values than columns"):
        request_files.read_requests(tmp_path / "b.csv", n=1)


def test_lines_are_counted_with_the_comments(tmp_path: Path) -> None:
    for name, head in (("a.csv", "formula\n"), ("a.txt", "")):
        (tmp_path / name).write_text(f"# one\n{head}TiO2\n# two\nXx\n")
        with pytest.raises(InputError, match=f"line {5 if head else 4}: 'Xx'"):
            list(request_files.read(tmp_path / name, n=1))


def test_a_workbook_is_read_as_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="workbooks need openpyxl")
    book = openpyxl.Workbook()
    for row in (
        ["Compound", "Z", "n", "id"],
        ["TiO2", 2.0, None, 5],
        [None, None, None, None],
        ["NaCl", "auto", 3],
    ):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    asked = [Request(formula="TiO2", z=2, n=7), Request(formula="NaCl", z="auto", n=3)]
    assert list(request_files.read(tmp_path / "a.xlsx", n=7)) == asked
    (tmp_path / "torn.xlsx").write_bytes((tmp_path / "a.xlsx").read_bytes()[:200])
    with pytest.raises(InputError, match="no readable Excel workbook"):
        list(request_files.read(tmp_path / "torn.xlsx", n=1))
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(CrystallmError, match="save it as CSV"):
        list(request_files.read(tmp_path / "a.xlsx", n=1))


@pytest.mark.parametrize(("content", "ending"), [("Formula;n\nTiO2;2\n", ".csv"), ("# x\nTiO2\n", ".txt")])
def test_a_pipe_is_read_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, ending: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    copy = request_files.place(Path("-"))
    assert copy.suffix == ending
    for _ in range(2):
        assert [request.formula for request in request_files.read(copy, n=1)] == ["TiO2"]
    (tmp_path / "a.csv").write_text(content)
    assert request_files.place(tmp_path / "a.csv") == tmp_path / "a.csv"


def test_a_text_has_a_formula_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("TiO2\n\n  (NH4)2SO4 \n")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"TiO2\n(NH4)2SO4"))
    for name in ("a.txt", "a.txt.gz"):
        assert [r.formula for r in request_files.read(tmp_path / name, n=1)] == ["TiO2", "(NH4)2SO4"]


def test_a_reduced_formula_leaves_z_open(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("TiO2\nTi2O4\n")
    as_parquet(tmp_path / "a.parquet", [{"formula": "TiO2", "z": None}, {"formula": "Ti2O4", "z": None}])
    for name in ("a.txt", "a.parquet"):
        assert [request.z for request in request_files.read(tmp_path / name, n=1)] == ["auto", None]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"TiO2\nNaCl\nXx\n", r"a\.txt, line 3: 'Xx': Xx is not an element"),
        ("a.txt", b"\n", r"write one formula a line$"),
        ("a.csv.gz", gzip.compress(b"formula\nTiO2\n", mtime=0)[:-6], "cannot be read to its end"),
        ("a.csv.gz", b"formula\nTiO2\n", "cannot be read to its end"),
        ("a.parquet", b"PAR1", "is no readable Parquet file"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        request_files.read_requests(tmp_path / name, n=1)
    assert "\n" not in str(caught.value)


def test_lists_that_unpack_to_far_more_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crystallm.sources.streams.FREE_BYTES", 10_000)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"formula\n" + b"#" * 2_000_000))
    parquet.write_table(pa.table({"formula": pa.nulls(10_000_000, pa.string())}), tmp_path / "a.parquet")
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr("xl/worksheets/sheet1.xml", b" " * 2_000_000)
    for name in ("a.csv.gz", "a.parquet", "a.xlsx"):
        with pytest.raises(InputError, match="unpacks to more than 200 times its size"):
            request_files.read_requests(tmp_path / name, n=1)


def test_a_broken_row_of_a_table_is_named(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"formula": "TiO2"}, {"formula": "NaCl"}, {"formula": "Xx"}]
    with pytest.raises(InputError, match="row 3: 'Xx': Xx is not an element"):
        request_files.read_requests(as_parquet(tmp_path / "a.parquet", rows), n=1)
    with pytest.raises(InputError, match="there must be the columns"):
        request_files.read_requests(as_parquet(tmp_path / "b.parquet", [{"material": "TiO2"}]), n=1)
    with pytest.raises(CrystallmError, match="cannot be read"):
        request_files.read_requests(tmp_path / "none.parquet", n=1)


def test_a_bad_row_in_the_middle_is_refused_with_its_line(tmp_path: Path) -> None:
    with (tmp_path / "a.csv").open("w") as file:
        file.write("formula\n")
        for i in range(3000):
            file.write("NaCl\n" if i != 1998 else "NaCl3x\n")
    with pytest.raises(InputError, match="a.csv, line 2000"):
        request_files.survey(request_files.checked(tmp_path / "a.csv", n=1, check=interpret))


def test_a_long_list_takes_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    peaks = []
    for n in (500, 20_000):
        path.write_text("formula\n" + "\n".join(itertools.repeat("NaCl", n)))
        tracemalloc.start()
        assert request_files.survey(request_files.read(path, n=2)).n_crystals == 2 * n
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] + 50_000  # bytes
