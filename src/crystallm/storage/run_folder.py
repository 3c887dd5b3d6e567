"""Run folders that survive a kill: finished work stays finished, and every file is complete.

    folder/
      run.json            the configuration of the run; a run of another configuration is rejected
      cifs/NAME.cif       files that a person opens
      parts/00000.parquet rows of one unit of work, written after all its files
      results.parquet     all rows in the order of the units, once all are done (the parts are then removed)

A large run keeps its rows in parts, which pandas and pyarrow read as one table:

      results/part-00000.parquet   rows of one unit of work
      summary.json                 totals over all rows, once all units are done

A unit is done when its part exists. Every file is written beside its target and moved into place, so a reader
never sees half a file. A killed run that is started again does only what is missing, and ends with the same
rows. See `execution.resumable` for the loop. Rows are plain values; the caller defines their columns.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError, InputError
from crystallm.storage.files import TEMPORARY, check_place, locked, saying, write_atomically, write_json
from crystallm.storage.tables import as_parquet, read_metadata, read_table
from crystallm.version import __version__

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

    from crystallm.options import Options

CONFIG = "run.json"
RESULTS = "results.parquet"
PARTS = "results"
SUMMARY = "summary.json"
FACTS = "dataset.json"
"""File of a data set folder, which is written last."""

_DIGEST = "unit"
"""Key of a unit's digest in the metadata of its part."""


class RunFolder:
    """A folder that holds the results of one run. Nothing is written before `open` or the first unit.

    Args:
        path: of the folder, which is created when needed; None keeps the rows in memory and writes no file.
        columns: name and pyarrow type name (`string`, `float64`, ...) of each column of the rows.
        marker: name of the file whose existence means that the run is finished; None: the usual ones.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        config: Mapping[str, Any],
        columns: Mapping[str, str],
        *,
        parted: bool = False,
        marker: str | None = None,
    ) -> None:
        self.path = None if path is None else Path(path)
        self.parted = parted
        self._marker = marker or (SUMMARY if parted else RESULTS)
        self._config = json.loads(json.dumps(dict(config)))
        self._columns = dict(columns)
        self._opened = self._locked = False
        self._held: dict[int, Sequence[Mapping[str, Any]]] = {}  # rows by unit, of a run without a folder
        self._summary: dict[str, Any] | None = None

    @staticmethod
    def configuration(command: str, *options: Options, **facts: Any) -> dict[str, Any]:
        """Return all that decides the results of a run: command, version, option values and other facts.

        Args:
            options: option groups; their fields that do not decide the results are left out.
            facts: further JSON values, such as the fingerprint of the weights or the digest of the input.
        """
        values: dict[str, Any] = {"command": command, "version": __version__}
        for group in options:
            values |= group.deciding()
        return values | facts

    def check(self) -> None:
        """Check that the folder can take this run, without writing anything.

        Raises:
            InputError: the folder holds another run, or results of unknown origin.
            CrystallmError: it is not a folder, or cannot be written or read.
        """
        if self.path is None:
            return
        check_place(self.path)
        if (self.path / CONFIG).exists():
            check_config(self.path / CONFIG, self._config)
            return
        for name in (RESULTS, PARTS):
            if (self.path / name).exists():
                raise InputError(f"{self.path / name} is of another origin: choose another folder with --out")

    def open(self) -> None:
        """Create the folder with its configuration, and remove what a kill left half-written."""
        if self._opened and self.path is not None:
            require_config(self.path)
            return
        self.check()
        if self.path is not None:
            with saying(f"the folder {str(self.path)!r} cannot be written"):
                self.path.mkdir(parents=True, exist_ok=True)
                for find in (self.path.glob, self._parts.glob, (self.path / "cifs").rglob):
                    for leftover in find(f".*{TEMPORARY}"):
                        leftover.unlink()
            if not (self.path / CONFIG).exists():
                write_atomically(self.path / CONFIG, json.dumps(self._config, indent=1).encode())
        self._opened = True

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Open the folder, and keep other processes from writing it; raises as `open`, or if one does."""
        if self.path is None or self._locked:
            yield
            return
        self.open()
        with locked(self.path / CONFIG):
            self._locked = True
            try:
                yield
            finally:
                self._locked = False

    @property
    def finished(self) -> bool:
        """Whether the results are complete, so that no unit is left to do."""
        return self._summary is not None or (self.path is not None and (self.path / self._marker).exists())

    def done(self) -> list[int]:
        """Return the numbers of the units that are done, in their order; of a run that is not finished."""
        if self.path is None:
            return sorted(self._held)
        with saying(f"the folder {str(self._parts)!r} cannot be read"):
            names = [path.stem for path in self._parts.glob("*.parquet")] if self._parts.is_dir() else []
        return sorted(int(name.removeprefix("part-")) for name in names)

    def has(self, unit: int, digest: str | None = None) -> bool:
        """Return whether a unit is done.

        Args:
            digest: of its content; None: not compared.

        Raises:
            InputError: the unit was done with another content.
            CrystallmError: its part is damaged.
        """
        if self.path is None or not self._part(unit).exists():
            return unit in self._held
        if digest is not None and read_metadata(self._part(unit)).get(_DIGEST, "") != digest:
            raise InputError(
                f"the input has changed since the run in {str(self.path)!r} was started (from unit {unit} "
                "on): choose a new folder, or delete this one"
            )
        return True

    def write_unit(
        self,
        unit: int,
        rows: Sequence[Mapping[str, Any]],
        cifs: Mapping[str, str],
        digest: str | None = None,
    ) -> None:
        """Write the results of one unit: its files first, then its rows, which make it done.

        Args:
            rows: one dict a crystal, with the columns of the folder.
            cifs: file name below the folder of CIFs -> text.
            digest: of the unit's content, see `has`.

        Raises:
            CrystallmError: the disk is full, or the folder was removed. The unit is then not done.
        """
        if self.path is None:
            self._held[unit] = rows
            return
        self.open()
        for name, text in cifs.items():
            self.write_file(f"cifs/{name}", text.encode())
        metadata = None if digest is None else {_DIGEST: digest}
        write_atomically(self._part(unit), as_parquet(rows, self._columns, metadata))

    def write_file(self, name: str, content: bytes) -> None:
        """Write a file of the folder; does nothing for a run without one."""
        if self.path is not None:
            write_atomically(self.path / name, content, sync=False)

    def finish(
        self,
        summary: Mapping[str, Any] | None = None,
        *,
        rows: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Complete the results when all units are done: `results.parquet`, or the summary of a run in parts.

        Does nothing for a finished run, except removing parts that are no longer needed.

        Args:
            summary: totals over all rows, for a run in parts.
            rows: replace those of the units, with what only all rows together determine; not for a run in
                parts.

        Raises:
            CrystallmError: a file cannot be written, or the folder was removed.
        """
        if not self.finished:
            if self.path is None:
                if rows is not None:
                    self._held = {0: rows}
                self._summary = dict(summary or {})
            elif self.parted:
                self.open()
                write_json(self.path / SUMMARY, dict(summary or {}))
            else:
                rows = self.rows() if rows is None else rows
                self.open()
                write_atomically(self.path / RESULTS, as_parquet(rows, self._columns))
        if not self.parted:
            self.drop_parts()

    def drop_parts(self) -> None:
        """Remove the rows of single units, which are stored elsewhere."""
        if self.path is not None:
            shutil.rmtree(self._parts, ignore_errors=True)

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows stored so far, in the order of the units."""
        return list(self.stream())

    def stream(self, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the rows stored so far, in the order of the units.

        Raises:
            CrystallmError: while drawing, a file of the folder is damaged.
        """
        if self.path is None:
            for unit in self.done():
                yield from map(dict, self._held[unit])
        else:
            for table in self.tables(columns):
                yield from table.to_pylist()

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the tables of rows stored so far, in the order of the units; of a run with a folder."""
        if self.path is not None and self.finished and (self.path / RESULTS).exists():
            yield read_table(self.path / RESULTS, columns)
        else:
            yield from (read_table(self._part(unit), columns) for unit in self.done())

    def summary(self) -> dict[str, Any]:
        """Return the totals over the rows of a finished run in parts.

        Raises:
            CrystallmError: the run is not finished, or the file is damaged.
        """
        if self.path is None:
            return dict(self._summary or {})
        return _read_json(self.path / SUMMARY)

    @property
    def _parts(self) -> Path:
        return Path(self.path or ".") / (PARTS if self.parted else "parts")

    def _part(self, unit: int) -> Path:
        return self._parts / f"{'part-' if self.parted else ''}{unit:05d}.parquet"


def require_config(folder: Path) -> None:
    """Raise CrystallmError if a folder was removed since its run was opened."""
    if not (folder / CONFIG).exists():
        raise CrystallmError(
            f"{str(folder / CONFIG)!r} is gone: the folder was removed or emptied while the run wrote it. "
            "Run it again, into a new folder"
        )


def result_files(folder: Path) -> list[Path]:
    """Return the Parquet files with the rows of a run folder in their order; none for other folders.

    Raises:
        InputError: it is a run in parts that is not finished.
    """
    if (folder / RESULTS).is_file():
        return [folder / RESULTS]
    if not ((folder / CONFIG).is_file() and (folder / PARTS).is_dir()):
        return []
    if not (folder / SUMMARY).is_file():
        raise InputError(f"the run in {str(folder)!r} is not finished: resume it with the same command")
    # By number: the hundred-thousandth has one more digit.
    return sorted((folder / PARTS).glob("part-*.parquet"), key=lambda path: int(path.stem.split("-")[1]))


def check_config(path: Path, config: Mapping[str, Any]) -> None:
    """Check that the file of a run's configuration holds this configuration.

    Raises:
        InputError: it holds another configuration.
    """
    stored = _read_json(path)
    command = stored.get("command")
    if command is not None and command != config.get("command"):
        raise InputError(f"{path.parent} holds a run of {command!r}: choose another folder with --out")
    changed = [key for key in {*stored, *config} if stored.get(key) != config.get(key)]
    # What both runs have says more than what one of them has besides.
    changed.sort(key=lambda key: (stored.get(key) is None or config.get(key) is None, key))
    for key in changed:
        was, now = _short(stored.get(key)), _short(config.get(key))
        raise InputError(
            f"{path.parent} holds another run ({key} was {was}, now {now}): choose another folder with "
            "--out, or delete this one"
        )


def _read_json(path: Path) -> dict[str, Any]:
    with saying(f"{path} cannot be read"):
        text = path.read_text(encoding="utf-8")
    try:
        content: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError):
        raise CrystallmError(f"{path} is broken: delete it, or choose another folder with --out") from None
    return content


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
