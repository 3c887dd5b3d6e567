"""Run folders that survive a kill: what is done stays done, and what is written is whole.

    folder/
      run.json            what was asked; another question is refused here
      cifs/NAME.cif       files that a person opens
      parts/00000.parquet rows of one unit of work, written when all its files are
      results.parquet     all rows, in the order of the units, when all are done (the parts are then gone)

A unit is done when its part is there. Every file is written beside its place and moved into it, so a reader
never sees half a file, and a killed run started again does only what is missing and ends with the same rows.
Knows nothing of crystals: rows are plain values, and the caller says what the columns are.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

CONFIG = "run.json"
RESULTS = "results.parquet"
_TEMPORARY = ".tmp"


class RunFolder:
    """A folder that holds the results of one run.

    Nothing is written before `open`.

    Args:
        path: of the folder; made if it is not there.
        config: what was asked, plain JSON values. A folder that holds another one is refused.
        n_units: units of work in the run.
        columns: name and pyarrow type name (`string`, `float64`, ...) of each column of the rows.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: Mapping[str, Any],
        n_units: int,
        columns: Mapping[str, str],
    ) -> None:
        self.path = Path(path)
        self.n_units = n_units
        self._config = json.loads(json.dumps(dict(config)))
        self._columns = dict(columns)

    def check(self) -> set[int]:
        """Look whether the folder can take this run, and which units are still to be done, writing nothing.

        Raises:
            InputError: it holds another run, or results of unknown origin.
            CrystallmError: it is no folder, or cannot be written or read.
        """
        check_place(self.path)
        there = self.path / CONFIG
        if not there.exists():
            if (self.path / RESULTS).exists():
                raise InputError(
                    f"{self.path / RESULTS} is of another origin: choose another folder with --out"
                )
            return set(range(self.n_units))
        check_question(there, self._config)
        if self.finished:
            return set()
        return {unit for unit in range(self.n_units) if not self._part(unit).exists()}

    def open(self) -> set[int]:
        """Make the folder ready and return the units that are still to be done.

        Raises:
            InputError, CrystallmError: as `check`.
        """
        todo = self.check()
        with _saying(f"the folder {str(self.path)!r} cannot be written"):
            self.path.mkdir(parents=True, exist_ok=True)
            for folder in (self.path, self._parts, self._cifs):
                for leftover in folder.glob(f".*{_TEMPORARY}"):
                    leftover.unlink()
        if not (self.path / CONFIG).exists():
            write_atomically(self.path / CONFIG, json.dumps(self._config, indent=1).encode())
        return todo

    @property
    def finished(self) -> bool:
        """Whether all rows are in `results.parquet`."""
        return (self.path / RESULTS).exists()

    def write_unit(self, unit: int, rows: Sequence[Mapping[str, Any]], cifs: Mapping[str, str]) -> None:
        """Write what one unit gave: its files first, then its rows, which make it done.

        Args:
            unit: its number, from 0.
            rows: one dict a crystal, with the columns of the folder.
            cifs: file name without folder -> text.

        Raises:
            CrystallmError: the disk is full, or the folder has gone. The unit is then not done.
        """
        for name, text in cifs.items():
            write_atomically(self._cifs / name, text.encode(), sync=False)
        write_atomically(self._part(unit), self._parquet(rows))

    def finish(self) -> Path:
        """Put the rows of all units into `results.parquet`, and return its path.

        Raises:
            CrystallmError: a unit is missing, or the file cannot be written.
        """
        target = self.path / RESULTS
        if not self.finished:
            missing = [unit for unit in range(self.n_units) if not self._part(unit).exists()]
            if missing:
                raise CrystallmError(f"{self.path}: {len(missing)} of {self.n_units} units are not done")
            write_atomically(target, self._parquet(list(self._part_rows())))
        shutil.rmtree(self._parts, ignore_errors=True)
        return target

    def rows(self) -> list[dict[str, Any]]:
        """All rows written so far, in the order of the units.

        Raises:
            CrystallmError: a file of the folder is damaged.
        """
        return _read(self.path / RESULTS) if self.finished else list(self._part_rows())

    @property
    def _parts(self) -> Path:
        return self.path / "parts"

    @property
    def _cifs(self) -> Path:
        return self.path / "cifs"

    def _part(self, unit: int) -> Path:
        return self._parts / f"{unit:05d}.parquet"

    def _part_rows(self) -> Iterator[dict[str, Any]]:
        for unit in range(self.n_units):
            if self._part(unit).exists():
                yield from _read(self._part(unit))

    def _parquet(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        return as_parquet(rows, self._columns)


def check_question(path: Path, config: Mapping[str, Any]) -> None:
    """Look whether a file that tells what was asked tells this.

    Args:
        path: of the file, which is there.
        config: what is asked now, plain JSON values.

    Raises:
        InputError: it was asked something else.
        CrystallmError: the file cannot be read.
    """
    with _saying(f"{path} cannot be read"):
        text = path.read_text(encoding="utf-8")
    try:
        known = json.loads(text)
    except json.JSONDecodeError:
        raise CrystallmError(f"{path} is broken: delete it, or choose another folder with --out") from None
    for key in sorted(set(known) | set(config)):
        was, now = known.get(key), config.get(key)
        if was != now:
            raise InputError(
                f"{path.parent} holds another run ({key} was {_short(was)}, now {_short(now)}): choose "
                "another folder with --out, or delete this one"
            )


def schema(columns: Mapping[str, str], metadata: Mapping[str, str] | None = None) -> pa.Schema:
    """Columns of a Parquet file by name and pyarrow type name, and what else its head says."""
    import pyarrow as pa

    fields = [(name, pa.type_for_alias(kind)) for name, kind in columns.items()]
    return pa.schema(fields, metadata=None if metadata is None else dict(metadata))


def as_parquet(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], metadata: Mapping[str, str] | None = None
) -> bytes:
    """Rows as the content of a Parquet file, with these columns (name and pyarrow type name)."""
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema(columns, metadata))
    parquet.write_table(table, sink)
    return bytes(sink.getvalue())


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file for people to read; raises as `write_atomically`."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    write_atomically(path, f"{text}\n".encode())


def check_place(path: Path) -> None:
    """Look whether a folder could be made or written, writing nothing.

    Raises:
        CrystallmError: a file is in the way, or the folder cannot be written.
    """
    if path.exists() and not path.is_dir():
        raise CrystallmError(f"{str(path)!r} is a file: name a folder for the results")
    place = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not place.is_dir():
        raise CrystallmError(f"{str(place)!r} is a file: no folder {str(path)!r} can be made in it")
    if not os.access(place, os.W_OK | os.X_OK):
        raise CrystallmError(f"the folder {str(place)!r} cannot be written: choose another with --out")


def write_atomically(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file so that it is there whole or not at all; its folder is made.

    Args:
        path: of the file; an old one is replaced.
        content: all of it.
        sync: wait until the disk has it, so that it outlives a loss of power too.

    Raises:
        CrystallmError: the disk is full, the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    with _saying(f"{str(path)!r} cannot be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def _read(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    with _saying(f"{path} cannot be read"):
        try:
            rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
        except pa.ArrowInvalid as error:
            raise CrystallmError(
                f"{path} is damaged ({str(error).splitlines()[0]}): delete it and run again"
            ) from None
    return rows


@contextlib.contextmanager
def _saying(what: str) -> Iterator[None]:
    """Turn an error of the operating system into one line."""
    try:
        yield
    except OSError as error:
        raise CrystallmError(f"{what}: {error.strerror or error}") from error


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
