"""What to ask a model so that it should find given crystals: cell composition, and space group if wanted.

Reads data set folders and collections; writes tables for `crystallm generate --formulas`, and archives of
prompts in the published language, which the original code reads, too. Refuses to know models.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import tarfile
import zipfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from crystallm.errors import CrystallmError, InputError
from crystallm.execution import mapping
from crystallm.execution import tasks as execution_tasks
from crystallm.storage import run_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


ARCHIVES = (".tar.gz", ".tgz", ".zip")

NAME = re.compile(r"[^\w.+-]")
"""What a file's name does not hold."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What to ask for one crystal.

    Attributes:
        id: of the crystal.
        cell: composition of its conventional cell, `Na4Cl4`; "" where it cannot be told.
        space_group: number; None if it is not to be asked for.
        problem: why it cannot be told; "" if it can.
    """

    id: str
    cell: str
    space_group: int | None = None
    problem: str = ""

    @property
    def composition(self) -> dict[str, int]:
        """Atoms of each element in the cell."""
        return {symbol: int(n) for symbol, n in re.findall(r"([A-Z][a-z]?)(\d+)", self.cell)}

    def text(self) -> str:
        """The beginning of a text of the published language.

        Raises:
            InputError: that language has no token for the space group.
        """
        from crystallm.language import get_language

        language = get_language("cif")
        return language.text(language.prompt(self.composition.items(), self.space_group))


def prompts(
    source: str | Path,
    *,
    with_group: bool = False,
    split: str | None = None,
    symprec: float = 0.1,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Prompt]:
    """Prompts for the crystals of a data set folder or a collection, in their order.

    Args:
        source: folder of `prepare`, or anything that `sources.read` reads.
        with_group: whether to name the space group.
        split: of a data set folder; by default `test`. Of collections all rows are taken.
        symprec: distance tolerance of the symmetry search, Å; of a data set folder it was done before.
        workers: processes.
        progress: called with the number of crystals read.

    Raises:
        InputError: the source cannot be read, has no such split, or a split was asked of a collection.
    """
    folder = Path(source)
    if (folder / run_folder.FACTS).is_file():
        yield from _of_data_set(folder, split or "test", with_group=with_group)
        return
    if split is not None:
        raise InputError(f"split = {split!r}: {str(source)!r} is no data set folder, all its rows are taken")
    from crystallm.datasets import prepare
    from crystallm.datasets.options import PrepareOptions
    from crystallm.sources import splits

    choices = PrepareOptions(language="none", symprec=symprec, deduplicate="formula-group", min_distance=0)
    record = choices.model_dump(mode="json")
    tasks = ({"choices": record, "rows": unit} for unit in prepare.units(splits.read_rows(str(source))))
    done = 0
    with prepare.local(workers) as executor:
        for rows in _in_order(mapping.stream(executor, prepare.TREAT, tasks, ahead=2 * workers + 2)):
            if isinstance(rows, execution_tasks.Failure):
                raise CrystallmError(f"{str(source)!r} cannot be read in a worker process: {rows.reason}")
            for row in rows:
                problem = f"{row['step']}: {row['reason']}" if row["step"] else ""
                group = row["space_group"] if with_group else None
                yield Prompt(row["id"], row["cell"] or "", group, problem)
            done += len(rows)
            if progress is not None:
                progress(done)


def _of_data_set(folder: Path, split: str, *, with_group: bool) -> Iterator[Prompt]:
    from pyarrow import parquet

    columns = ["id", "split", "cell", "space_group"]
    found = False
    with parquet.ParquetFile(folder / "rows.parquet") as file:
        if not set(columns) <= set(file.schema_arrow.names):
            raise InputError(f"rows.parquet in {str(folder)!r} does not say cells: prepare the data again")
        for batch in file.iter_batches(columns=columns):
            for row in batch.to_pylist():
                if row["split"] != split:
                    continue
                found = True
                if row["cell"] is None:
                    raise InputError(
                        f"no symmetry was sought for {str(folder)!r}: give the collection itself"
                    )
                yield Prompt(row["id"], row["cell"], row["space_group"] if with_group else None)
    if not found:
        raise InputError(f"{str(folder)!r} has no crystal of the split {split!r}: give train, val or test")


def _in_order(found: Iterable[tuple[int, Any]]) -> Iterator[Any]:
    waiting: dict[int, Any] = {}
    following = 0
    for number, value in found:
        waiting[number] = value
        while following in waiting:
            yield waiting.pop(following)
            following += 1


class _Sink(Protocol):
    def add(self, prompt: Prompt) -> None: ...


def write(found: Iterable[Prompt], path: Path) -> tuple[int, list[Prompt]]:
    """Write prompts to a file.

    Args:
        found: to write.
        path: `.csv` with columns id, formula, z, space_group; or `.tar.gz`, `.tgz` or `.zip` of `ID.txt`.

    Returns:
        How many were written, and those that could not be, each with its problem.

    Raises:
        InputError: another ending.
        CrystallmError: the file cannot be written.
    """
    name = path.name.lower()
    if not name.endswith((".csv", *ARCHIVES)):
        raise InputError(f"out = {str(path)!r}: name a file that ends in .csv, {', '.join(ARCHIVES)}")
    sink = _table if name.endswith(".csv") else _zip if name.endswith(".zip") else _tar
    n, skipped = 0, []
    new = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with sink(new) as place:
            for prompt in found:
                if prompt.problem:
                    skipped.append(prompt)
                    continue
                try:
                    place.add(prompt)
                    n += 1
                except InputError as error:
                    skipped.append(replace(prompt, problem=str(error)))
        new.replace(path)
    except OSError as error:
        raise CrystallmError(f"{str(path)!r} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)
    return n, skipped


class _Table:
    def __init__(self, file: io.TextIOBase) -> None:
        self._writer = csv.writer(file)
        self._writer.writerow(("id", "formula", "z", "space_group"))

    def add(self, prompt: Prompt) -> None:
        from crystallm.crystallography import formula, space_groups

        group = "" if prompt.space_group is None else space_groups.get(prompt.space_group).symbol
        # A cell of one formula unit would leave Z open.
        self._writer.writerow((prompt.id, prompt.cell, formula.cell(prompt.cell).z, group))


@contextmanager
def _table(path: Path) -> Iterator[_Sink]:
    with path.open("w", newline="", encoding="utf-8") as file:
        yield _Table(file)


class _Archive:
    """Files of an archive, no name twice."""

    def __init__(self, put: Callable[[str, bytes], None]) -> None:
        self._put = put
        self._names: set[str] = set()

    def add(self, prompt: Prompt) -> None:
        content = prompt.text().encode()
        base = name = NAME.sub("_", prompt.id) or "_"
        again = 1
        while name in self._names:
            again += 1
            name = f"{base}-{again}"
        self._names.add(name)
        self._put(f"{name}.txt", content)


@contextmanager
def _tar(path: Path) -> Iterator[_Sink]:
    # No times and no names in it: equal prompts make equal bytes.
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|") as archive,
    ):

        def put(name: str, content: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))

        yield _Archive(put)


@contextmanager
def _zip(path: Path) -> Iterator[_Sink]:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:

        def put(name: str, content: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)

        yield _Archive(put)
