"""Crystals for other programs: CIF, POSCAR, extended XYZ, ASE's database, CSV, pymatgen, OPTIMADE, GenBench.

    cif       folder of ID.cif, as they were written where they were written as CIFs
    poscar    folder of ID.vasp
    extxyz    .extxyz, a frame a crystal; `energy` is that of the cell, eV
    ase       .db, SQLite (needs ASE)
    csv       .csv with columns id, formula, ..., cif
    pymatgen  .json, a list of {"id": ..., "structure": Structure.as_dict(), ...}
    optimade  .jsonl, OPTIMADE JSON Lines: a head, then a structure a line
    genbench  what LeMat-GenBench takes as --cifs: a folder of CIFs, and structures.txt, which lists them

Most store the properties of a crystal (`FACTS`), and `sources.read` reads all of them. Files are written one
crystal at a time to a temporary path, and moved into place at the end. Crystals that cannot be read are
counted and named; all others are written. Does not depend on models.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from crystallm.crystals.table import COLUMNS
from crystallm.errors import CrystallmError, InputError, install, quiet_libraries
from crystallm.export.writers import FACTS, FORMATS, Item, file_name
from crystallm.sources.entry import Entry


@dataclass(frozen=True, slots=True)
class Exported:
    """Result of an export.

    Attributes:
        path: file or folder.
        n: crystals in it.
        skipped: id and reason of each that is not.
        notes: id of each whose reading had to be decided, and how.
    """

    path: Path
    n: int
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[tuple[str, str], ...] = ()


def export(
    source: str | os.PathLike[str],
    to: str,
    out: str | os.PathLike[str] | None = None,
    *,
    only_valid: bool = False,
    everything: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Exported:
    """Write the crystals of a collection in another format.

    Args:
        source: a run folder, or whatever `sources.read` reads.
        to: one of `FORMATS`.
        out: file or folder, which must not be there; a file named without an ending is given that of the
            format; by default the name of the source with that ending, in the folder at hand.
        only_valid: leave out crystals of a run that are not plausible.
        everything: also crystals that the options of the run have thrown out.
        progress: called with the number of crystals read.

    Raises:
        InputError: no such format or source, a library is missing, the place is taken, or no crystal can go.
        CrystallmError: it cannot be written.
    """
    if to not in FORMATS:
        raise InputError(f"to = {to!r}: give one of {', '.join(FORMATS)}")
    ending, writer = FORMATS[to]
    path = Path(out) if out is not None else _default(Path(source), to, ending)
    if not path.suffix:
        path = path.with_name(f"{path.name}{ending}")  # by which it is known what can be read again
    if path.exists():
        raise InputError(f"{str(path)!r} is there already: name another place with --out")
    if to == "ase" and find_spec("ase") is None:
        raise InputError(f"ASE's databases are written by ASE: {install('ase')}")
    new = path.with_name(f".{path.name}.tmp{ending}")
    skipped: list[tuple[str, str]] = []
    notes: list[tuple[str, str]] = []
    n = 0
    try:
        _remove(new)
        path.parent.mkdir(parents=True, exist_ok=True)
        # pymatgen warns of elements without an electronegativity, and of long names.
        with quiet_libraries(), writer(new) as write:
            for found in _items(source, only_valid=only_valid, everything=everything, progress=progress):
                if not isinstance(found, Item):
                    skipped.append(found)
                    continue
                try:
                    write(found)
                    n += 1
                    notes += [(found.id, found.note)] if found.note else []
                except CrystallmError as error:
                    skipped.append((found.id, str(error)))
        if not n:
            why = f" ({skipped[0][0]}: {skipped[0][1]})" if skipped else ""
            raise InputError(f"{str(source)!r} has no crystal that can be written{why}")
        new.rename(path)
    except OSError as error:
        raise CrystallmError(f"{str(path)!r} cannot be written: {error.strerror or error}") from error
    finally:
        _remove(new)
    return Exported(path, n, tuple(skipped), tuple(notes))


def _default(source: Path, to: str, ending: str) -> Path:
    name = re.sub(r"\.(tar\.\w+|\w+\.gz|\w{2,7})$", "", source.resolve().name) or source.resolve().name
    return Path(f"{name}{ending}" if ending else f"{name}-{to}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


# --- what there is ---


def _items(
    source: str | os.PathLike[str],
    *,
    only_valid: bool,
    everything: bool,
    progress: Callable[[int], None] | None,
) -> Iterator[Item | tuple[str, str]]:
    """Yield the crystals of a collection, or id and reason of each that cannot be read."""
    from crystallm.sources import parsing

    names: Counter[str] = Counter()
    for number, (entry, row) in enumerate(_entries(Path(source), everything=everything), 1):
        name = file_name(entry.id)
        names[name] += 1
        if names[name] > 1:
            name = f"{name}-{names[name]}"
        if progress is not None:
            progress(number)
        if entry.text is None:
            yield name, entry.problem
            continue
        facts = {key: fact for key in FACTS if (fact := _fact(key, row.get(key))) is not None}
        if only_valid and facts.get("plausible", facts.get("valid")) is False:
            yield name, f"not plausible: {facts.get('reasons', 'no reason is given')}"
            continue
        try:
            reading = parsing.read(entry.text, entry.format)
        except CrystallmError as error:
            yield name, str(error)
            continue
        text = entry.text if entry.format == "cif" else None
        yield Item(name, reading.structure, text, facts, "; ".join(reading.notes))


def _fact(name: str, cell: Any) -> Any:
    """Return a value of a table in the type of its column: those of a CSV are texts. None if invalid."""
    kind = COLUMNS[name]
    if not isinstance(cell, str) or kind == "string":
        return None if cell == "" else cell
    text = cell.strip().lower()
    if kind == "bool":
        return {"true": True, "false": False}.get(text)
    try:
        if kind != "float64" and text.removeprefix("-").isdecimal():
            return int(text)  # a seed has more digits than a float
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    if kind == "float64":
        return number
    return int(number) if number.is_integer() else None  # as others write 136.0


def _entries(source: Path, *, everything: bool) -> Iterator[tuple[Entry, dict[str, Any]]]:
    """Yield entries, with their rows of a run or a table."""
    from crystallm.sources import collection
    from crystallm.sources import entry as sources_entry
    from crystallm.sources.formats.tables import rows
    from crystallm.storage import run_folder

    tables = run_folder.result_files(source) if source.is_dir() else []
    if source.is_file() and source.name.lower().endswith(sources_entry.TABLES):
        tables = [source]
    if tables:
        for path in tables:
            yield from rows(path, FACTS, everything=everything)
    else:
        yield from ((entry, {}) for entry in collection.read(source))
