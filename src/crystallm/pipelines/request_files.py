"""Files of requests, read as streams: a file of a million rows takes no more memory than one of ten.

    .csv, any other ending   columns [id,]formula[,z][,space_group][,n]; an id is for the reader of the file;
                             elements[,allow_fewer_elements] beside the formula, or in its place;
                             composition stands for formula
    .parquet                 the same columns
    .txt                     a formula a line
    .tar .tar.gz .tgz .zip   prompts in the published language, one a member

A reduced formula without z leaves Z open (see `request.with_default_z`), except in prompts, which encode
cells. .csv and .txt may be compressed (.gz). Does not depend on models.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crystallm.errors import CrystallmError, InputError, one_line
from crystallm.generation.interpretation import interpret
from crystallm.generation.request import Request, with_default_z

COLUMNS = ("id", "formula", "z", "space_group", "n", "elements", "allow_fewer_elements")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
CHUNK = 1000  # rows read at a time from a Parquet file


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
    found, cells = False, path.name.lower().endswith(ARCHIVES)
    for where, values in _rows(path):
        found = True
        try:
            request = Request.build({"n": n, **values})
            request = request if cells else with_default_z(request)
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
    if path.name.lower().endswith(ARCHIVES):
        return _from_prompts(path)
    if path.suffix.lower() == ".parquet":
        return _from_parquet(path)
    return _from_text(path) if _is_text(path) else _from_csv(path)


def _from_csv(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with _opened(path, "CSV file") as file:
        reader = csv.DictReader(file, restkey="", skipinitialspace=True)
        names = _known_names([(name or "").strip() for name in reader.fieldnames or ()])
        _check_columns(path, names, "the first line must name")
        reader.fieldnames = names
        for row in reader:
            where = f"line {reader.line_num}"
            if "" in row:  # where DictReader puts values after the last column
                raise InputError(f"{path}, {where}: more values than columns: is a comma too many?")
            yield where, _filled(path, where, row)


def _from_text(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with _opened(path, "text") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"line {number}", {"formula": line.strip()}


def _from_parquet(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow as pa
    from pyarrow import parquet

    number = 0
    try:
        # Both options, else whole row groups are read ahead: often, that is the whole file.
        with parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as source:
            names = _known_names(source.schema_arrow.names)
            _check_columns(path, names, "there must be")
            for batch in source.iter_batches(batch_size=CHUNK):
                for row in batch.rename_columns(names).to_pylist():
                    number += 1
                    cells = {name: None if cell is None else str(cell) for name, cell in row.items()}
                    yield f"row {number}", _filled(path, f"row {number}", cells)
    except OSError as error:
        raise CrystallmError(f"{path} cannot be read: {error.strerror or error}") from error
    except pa.ArrowException as error:
        raise InputError(f"{path} is no readable Parquet file: {one_line(error)}") from None


def _from_prompts(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the requests of an archive of prompts; composition and group are parsed, other prompts kept."""
    from crystallm.cif import block
    from crystallm.sources import collection

    for name, text in collection.read_prompts(path):
        lines = [line for line in text.split("\n") if line.strip()]
        head = re.fullmatch(r"data_((?:[A-Z][a-z]?\d+)+)", lines[0].strip()) if lines else None
        last = lines[-1].split(maxsplit=1) if lines else []
        if head is not None and len(lines) == 1:
            yield name, {"formula": head[1]}
        elif head is not None and len(last) == 2 and last[0] == block.GROUP:
            yield name, {"formula": head[1], "space_group": last[1]}
        else:
            yield name, {} if text.strip() == "data_" else {"prompt": text}


def _known_names(names: list[str]) -> list[str]:
    """Return our names of the columns: other tools call the formula composition."""
    return names if "formula" in names else ["formula" if name == "composition" else name for name in names]


def _check_columns(path: Path, names: list[str], said: str) -> None:
    if not {"formula", "elements"} & set(names) or set(names) - set(COLUMNS):
        raise InputError(
            f"{path}: {said} the columns formula[,z][,space_group][,n], or elements in place of the formula, "
            f"not {','.join(names)[:60]!r}"
        )


def _filled(path: Path, where: str, row: Mapping[str, str | None]) -> dict[str, str]:
    """Return the values of a row that are not empty."""
    values = {name: value.strip() for name, value in row.items() if value and value.strip() and name != "id"}
    if not values.keys() & {"formula", "elements"}:
        raise InputError(f"{path}, {where}: no formula" + (" and no elements" if "elements" in row else ""))
    return values


@contextmanager
def _opened(path: Path, kind: str) -> Iterator[io.TextIOBase]:
    """Open a text file, decompressed if its name ends in .gz."""
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield file
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no {kind} in UTF-8: {error}") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be unpacked to its end: {error}") from None
    except OSError as error:
        raise CrystallmError(f"{path} cannot be read: {error.strerror}") from error
