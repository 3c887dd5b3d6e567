"""Files of requests, read as streams: a file of a million rows takes no more memory than one of ten.

    .csv, any other ending   columns [id,]formula[,z][,space_group][,n]; an id is for the reader of the file;
                             elements[,allow_fewer_elements] beside the formula, or in its place;
                             conditions, such as `density=5.2 band_gap=1.2:1.8`, beside or in place of both;
                             compound and composition stand for formula, in capitals or not; separated by
                             commas, semicolons or tabs
    .parquet .xlsx           the same columns; of a workbook, the first one
    .txt                     a formula a line
    - or a pipe              either of both, as the first line says

A reduced formula without z leaves Z open (see `request.with_default_z`). .csv and .txt may be compressed
(.gz); lines that start with # are comments, in a .txt also what follows a blank and a #. Does not depend on
models.
"""

from __future__ import annotations

import atexit
import csv
import hashlib
import io
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crystallm.errors import CrystallmError, InputError, install, one_line
from crystallm.generation.interpretation import interpret
from crystallm.generation.request import Request, with_default_z
from crystallm.sources import streams
from crystallm.sources.formats.tables import parquet_rows
from crystallm.storage import files

COLUMNS = ("id", "formula", "z", "space_group", "n", "elements", "allow_fewer_elements", "conditions")
NAMES = {
    "composition": "formula",
    "compound": "formula",
    "chemical_formula": "formula",
    "spacegroup": "space_group",
    "samples": "n",
    "condition": "conditions",
}
SUBJECTS = {"formula", "elements", "conditions"}
"""Columns of which a file has one at least."""
"""Columns as other tools, and people, call them."""
STDIN = ("-", "/dev/stdin")


@dataclass(frozen=True, slots=True)
class Survey:
    """Summary of a list of requests.

    Attributes:
        n_requests: number of requests.
        n_crystals: number of crystals requested in all.
        sha256: hash of the parsed requests, independent of the file format.
    """

    n_requests: int
    n_crystals: int
    sha256: str


def place(path: Path) -> Path:
    """Return the path of a file that can be read again: of a pipe or standard input (`-`), a copy of it.

    Raises:
        CrystallmError: it cannot be read.
    """
    if str(path) not in STDIN and (path.is_file() or not path.exists() or path.is_dir()):
        return path
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise CrystallmError(f"{path} cannot be read: {error.strerror or error}") from error
    lines = content.decode("utf-8-sig", "replace").splitlines()
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    columns = _known_names(re.split("[,;\t]", first))
    with tempfile.NamedTemporaryFile(
        prefix="requests-", suffix=".csv" if SUBJECTS & set(columns) else ".txt", delete=False
    ) as file:
        file.write(content)
    copy = Path(file.name)
    atexit.register(copy.unlink, missing_ok=True)
    return copy


def survey(requests: Iterable[Request]) -> Survey:
    """Count and hash requests, in one pass."""
    digest = hashlib.sha256()
    n_requests = n_crystals = 0
    for request in requests:
        digest.update(_line(request))
        n_requests += 1
        n_crystals += request.n
    return Survey(n_requests, n_crystals, digest.hexdigest())


def unchanged(requests: Iterable[Request], found: Survey) -> Iterator[Request]:
    """Yield the requests of a second reading; a run of days reads its list as it goes.

    Raises:
        CrystallmError: after the last one, if they differ from those of the first reading.
    """
    digest = hashlib.sha256()
    for request in requests:
        digest.update(_line(request))
        yield request
    if digest.hexdigest() != found.sha256:
        raise CrystallmError("the list of requests was changed during the run: start a new run elsewhere")


def _line(request: Request) -> bytes:
    values: tuple[object, ...] = (
        request.formula, request.z, request.space_group, request.n, request.prompt
    )  # fmt: skip
    if request.elements is not None:  # hashes of runs without elements stay the same
        values = (*values, request.elements, request.allow_fewer_elements)
    if request.conditions:
        values = (*values, request.conditions)
    return f"{values!r}\n".encode()


def checked(path: Path, *, n: int, check: Callable[[Request], object]) -> Iterator[Request]:
    """Yield the requests of a file, each checked as it is read.

    Args:
        n: crystals of a request whose row has no n.
        check: raises InputError for an impossible request.

    Raises:
        InputError: a missing or unknown column, or an invalid request, with its line.
        CrystallmError: the file cannot be read.
    """
    found = False
    for where, values in _rows(path):
        found = True
        try:
            request = with_default_z(Request.build({"n": n, **values}))
            check(request)
        except InputError as error:
            raise InputError(f"{path}, {where}: {error}") from None
        yield request
    if not found:
        raise InputError(f"{path} holds no request: write one formula a line{_below(path)}")


def read(path: Path, *, n: int) -> Iterator[Request]:
    """Yield the requests of a file that has been checked before; see `checked`."""
    return checked(path, n=n, check=lambda _: None)


def read_requests(path: Path, *, n: int, fitting: bool = True) -> list[Request]:
    """Return all requests of a file, each interpreted to check it."""
    return list(checked(path, n=n, check=lambda request: interpret(request, fitting=fitting)))


def _below(path: Path) -> str:
    return "" if _is_text(path) else " below the line that names the columns"


def _is_text(path: Path) -> bool:
    return path.name.lower().endswith((".txt", ".txt.gz"))


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the position of each request in the file, and its values."""
    if path.suffix.lower() == ".parquet":
        return _from_parquet(path)
    if path.suffix.lower() in (".xlsx", ".xlsm"):
        return _from_workbook(path)
    return _from_text(path) if _is_text(path) else _from_csv(path)


def _from_csv(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with _opened(path, "CSV file") as file:
        lines = _Lines(file)
        head = next(lines, "")
        separator = max(",;\t", key=head.count)  # of equals, the comma
        (given,) = csv.reader([head], delimiter=separator, skipinitialspace=True) if head else ([],)
        names = _known_names(given)
        _check_columns(path, names, given, "the first line must name")
        reader = csv.DictReader(lines, names, skipinitialspace=True, delimiter=separator)
        for row in reader:
            where = f"line {lines.number}"
            if any(value.strip() for value in row.get(None, ())):  # after the last column
                raise InputError(f"{path}, {where}: more values than columns: is a comma too many?")
            if any(value and value.strip() for name, value in row.items() if name is not None):
                yield where, _filled(path, where, row)  # spreadsheets write separators in empty rows, too


def _from_text(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with _opened(path, "text") as file:
        lines = _Lines(file)
        for line in lines:
            if formula := re.split(r"\s#", line)[0].strip():
                yield f"line {lines.number}", {"formula": formula}


class _Lines:
    """The lines of a file that are no comments.

    Attributes:
        number: of the last line that was read, from 1.
    """

    def __init__(self, file: Iterable[str]) -> None:
        self._file = iter(file)
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for line in self._file:
            self.number += 1
            if not line.startswith("#"):
                return line
        raise StopIteration


def _from_workbook(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        import openpyxl
    except ImportError:
        raise CrystallmError(f"{path} is an Excel workbook: save it as CSV, or {install('excel')}") from None
    try:
        with zipfile.ZipFile(path) as parts:
            if sum(part.file_size for part in parts.infolist()) > streams.most_bytes(path):
                raise streams.bomb(path)
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        rows = book.worksheets[0].iter_rows(values_only=True)
        given = [str(cell or "") for cell in next(rows, ())]
        names = _known_names(given)
        _check_columns(path, names, given, "the first row must name")
        for number, row in enumerate(rows, start=2):
            cells = {name: _cell_text(cell) for name, cell in zip(names, row, strict=False) if name}
            if any(cells.values()):
                yield f"row {number}", _filled(path, f"row {number}", cells)
    except OSError as error:
        raise CrystallmError(f"{path} cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, KeyError, ValueError, IndexError, SyntaxError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no readable Excel workbook: {one_line(error)}") from None


def _cell_text(cell: object) -> str | None:
    """Return the text of a cell of a workbook, in which all numbers are floats."""
    return (
        None
        if cell is None
        else f"{cell:.0f}"
        if isinstance(cell, float) and cell.is_integer()
        else str(cell)
    )


def _from_parquet(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    names: list[str] = []

    def wanted(given: list[str]) -> list[str]:
        names.extend(_known_names(given))
        _check_columns(path, names, given, "there must be")
        return given

    with files.saying(f"{path} cannot be read"):
        for number, row in enumerate(parquet_rows(path, wanted), start=1):
            texts = (None if cell is None else str(cell) for cell in row.values())
            yield f"row {number}", _filled(path, f"row {number}", dict(zip(names, texts, strict=True)))


def _known_names(names: Sequence[str]) -> list[str]:
    """Return our names of the columns."""
    plain = [re.sub("[ -]+", "_", name.strip().lower()) for name in names]
    return [other if (other := NAMES.get(name)) and other not in plain else name for name in plain]


def _check_columns(path: Path, names: list[str], given: Sequence[str], said: str) -> None:
    named = [name for name in names if name]  # a spreadsheet may have empty columns
    if len(set(named)) < len(named) or not SUBJECTS & set(named) or set(named) - set(COLUMNS):
        raise InputError(
            f"{path}: {said} the columns formula[,z][,space_group][,n], or elements in place of the formula, "
            f"not {','.join(name.strip() for name in given)[:60]!r}"
        )


def _filled(path: Path, where: str, row: Mapping[str, str | None]) -> dict[str, str]:
    """Return the values of a row that are not empty."""
    values = {
        name: value.strip()
        for name, value in row.items()
        if name and name != "id" and value and value.strip()
    }
    if not values.keys() & SUBJECTS:
        raise InputError(f"{path}, {where}: no formula" + (" and no elements" if "elements" in row else ""))
    return values


@contextmanager
def _opened(path: Path, kind: str) -> Iterator[io.TextIOBase]:
    """Open a text file, decompressed if its name ends in .gz."""
    try:
        if path.name.lower().endswith(".gz"):
            with streams.binary(path) as packed, io.TextIOWrapper(packed, "utf-8-sig", newline="") as file:
                yield file
        else:
            with path.open(encoding="utf-8-sig", newline="") as file:
                yield file
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no {kind} in UTF-8: {error}") from None
    except OSError as error:
        raise CrystallmError(f"{path} cannot be read: {error.strerror}") from error
