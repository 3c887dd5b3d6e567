"""Run folders that survive a kill: what is done stays done, and what is written is whole.

    folder/
      run.json            what was asked; another question is refused here
      cifs/NAME.cif       files that a person opens
      parts/00000.parquet rows of one unit of work, written when all its files are
      results.parquet     all rows, in the order of the units, when all are done (the parts are then gone)

A large run keeps its rows in parts, which pandas and pyarrow read as one table:

      results/part-00000.parquet   rows of one unit of work
      summary.json                 what they add up to, when all are done

A unit is done when its part is there. Every file is written beside its place and moved into it, so a reader
never sees half a file, and a killed run started again does only what is missing and ends with the same rows.
Knows nothing of crystals: rows are plain values, and the caller says what the columns are.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError, InputError
from crystallm.storage.files import TEMPORARY, check_place, saying, write_atomically, write_json
from crystallm.storage.tables import as_parquet, read

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence


CONFIG = "run.json"

RESULTS = "results.parquet"

PARTS = "results"

SUMMARY = "summary.json"


class RunFolder:
    """A folder that holds the results of one run.

    Nothing is written before `open`.

    Args:
        path: of the folder; made if it is not there.
        config: what was asked, plain JSON values. A folder that holds another one is refused.
        n_units: units of work in the run.
        columns: name and pyarrow type name (`string`, `float64`, ...) of each column of the rows.
        parted: whether the rows stay in parts.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: Mapping[str, Any],
        n_units: int,
        columns: Mapping[str, str],
        *,
        parted: bool = False,
    ) -> None:
        self.path = Path(path)
        self.n_units = n_units
        self.parted = parted
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
            for name in (RESULTS, PARTS):
                if (self.path / name).exists():
                    raise InputError(
                        f"{self.path / name} is of another origin: choose another folder with --out"
                    )
            return set(range(self.n_units))
        check_question(there, self._config)
        return set() if self.finished else self._missing()

    def open(self) -> set[int]:
        """Make the folder ready and return the units that are still to be done.

        Raises:
            InputError, CrystallmError: as `check`.
        """
        todo = self.check()
        with saying(f"the folder {str(self.path)!r} cannot be written"):
            self.path.mkdir(parents=True, exist_ok=True)
            for folder in (self.path.glob, self._parts.glob, self._cifs.rglob):
                for leftover in folder(f".*{TEMPORARY}"):
                    leftover.unlink()
        if not (self.path / CONFIG).exists():
            write_atomically(self.path / CONFIG, json.dumps(self._config, indent=1).encode())
        return todo

    @property
    def finished(self) -> bool:
        """Whether all rows are in `results.parquet`, or all parts there and counted."""
        return (self.path / (SUMMARY if self.parted else RESULTS)).exists()

    def write_unit(self, unit: int, rows: Sequence[Mapping[str, Any]], cifs: Mapping[str, str]) -> None:
        """Write what one unit gave: its files first, then its rows, which make it done.

        Args:
            unit: its number, from 0.
            rows: one dict a crystal, with the columns of the folder.
            cifs: file name below the folder of CIFs -> text.

        Raises:
            CrystallmError: the disk is full, or the folder has gone. The unit is then not done.
        """
        for name, text in cifs.items():
            write_atomically(self._cifs / name, text.encode(), sync=False)
        write_atomically(self._part(unit), self._parquet(rows))

    def finish(
        self,
        summary: Mapping[str, Any] | None = None,
        *,
        rows: Sequence[Mapping[str, Any]] | None = None,
    ) -> Path:
        """Put the rows of all units into `results.parquet`, or note that all parts are there.

        Args:
            summary: what the rows add up to, for a run in parts.
            rows: to stand in the place of those of the units, with what only all of them tell; not for a
                run in parts.

        Returns:
            The path of the rows.

        Raises:
            CrystallmError: a unit is missing, or a file cannot be written.
        """
        target = self.path / (PARTS if self.parted else RESULTS)
        if not self.finished:
            missing = self._missing()
            if missing:
                raise CrystallmError(f"{self.path}: {len(missing)} of {self.n_units} units are not done")
            if self.parted:
                write_json(self.path / SUMMARY, dict(summary or {}))
            else:
                write_atomically(target, self._parquet(list(self.stream()) if rows is None else rows))
        if not self.parted:
            shutil.rmtree(self._parts, ignore_errors=True)
        return target

    def rows(self) -> list[dict[str, Any]]:
        """All rows written so far, in the order of the units.

        Raises:
            CrystallmError: a file of the folder is damaged.
        """
        return list(self.stream())

    def stream(self, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """The rows written so far one after another, in the order of the units.

        Args:
            columns: of these alone; None for all.

        Raises:
            CrystallmError: while drawing, a file of the folder is damaged.
        """
        if self.finished and not self.parted:
            yield from read(self.path / RESULTS, columns)
            return
        missing = self._missing()
        for unit in range(self.n_units):
            if unit not in missing:
                yield from read(self._part(unit), columns)

    def summary(self) -> dict[str, Any]:
        """What the rows of a finished run in parts add up to.

        Raises:
            CrystallmError: it cannot be read.
        """
        path = self.path / SUMMARY
        with saying(f"{path} cannot be read"):
            try:
                found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            except json.JSONDecodeError:
                raise CrystallmError(f"{path} is broken: delete it and run again") from None
        return found

    @property
    def _parts(self) -> Path:
        return self.path / (PARTS if self.parted else "parts")

    @property
    def _cifs(self) -> Path:
        return self.path / "cifs"

    def _part(self, unit: int) -> Path:
        return self._parts / f"{'part-' if self.parted else ''}{unit:05d}.parquet"

    def _missing(self) -> set[int]:
        """Units whose part is not there."""
        with saying(f"the folder {str(self._parts)!r} cannot be read"):
            there = {path.name for path in self._parts.iterdir()} if self._parts.is_dir() else set()
        return {unit for unit in range(self.n_units) if self._part(unit).name not in there}

    def _parquet(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        return as_parquet(rows, self._columns)


def result_files(folder: Path) -> list[Path]:
    """The Parquet files with the rows of a run folder in their order; none where it is no run, or not done.

    Raises:
        InputError: it is a run in parts that is not finished.
    """
    if (folder / RESULTS).is_file():
        return [folder / RESULTS]
    if not ((folder / CONFIG).is_file() and (folder / PARTS).is_dir()):
        return []
    if not (folder / SUMMARY).is_file():
        raise InputError(f"the run in {str(folder)!r} is not finished: the command that began it goes on")
    # By number: the hundred-thousandth has one more digit.
    return sorted((folder / PARTS).glob("part-*.parquet"), key=lambda path: int(path.stem.split("-")[1]))


def check_question(path: Path, config: Mapping[str, Any]) -> None:
    """Look whether a file that tells what was asked tells this.

    Args:
        path: of the file, which is there.
        config: what is asked now, plain JSON values.

    Raises:
        InputError: it was asked something else.
        CrystallmError: the file cannot be read.
    """
    with saying(f"{path} cannot be read"):
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


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


FACTS = "dataset.json"
