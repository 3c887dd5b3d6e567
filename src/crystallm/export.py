"""Crystals for other programs: CIF, POSCAR, extended XYZ, ASE's database, CSV, pymatgen, OPTIMADE, GenBench.

    cif       folder of ID.cif, as they were written where they were written as CIFs
    poscar    folder of ID.vasp
    extxyz    .extxyz, a frame a crystal; `energy` is that of the cell, eV
    ase       .db, SQLite (needs ASE)
    csv       .csv with columns id, formula, ..., cif
    pymatgen  .json, a list of {"id": ..., "structure": Structure.as_dict(), ...}
    optimade  .jsonl, OPTIMADE JSON Lines: a head, then a structure a line
    genbench  what LeMat-GenBench takes as --cifs: a folder of CIFs, and structures.txt, which lists them

Most keep what is known of a crystal beside it (`FACTS`), and all can be read by `sources.read`. Files are
written one crystal at a time, beside their place, and moved into it at the end. Refuses to know models and
which crystals are worth it: what cannot be read is counted and named, the rest is written.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import re
import shutil
import warnings
from collections import Counter
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from crystallm import optimade
from crystallm.crystallography import formula
from crystallm.crystals.table import COLUMNS
from crystallm.errors import CrystallmError, InputError, install
from crystallm.structures import conversion

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from pymatgen.core import Structure

    from crystallm.sources.entry import Entry

FACTS = (
    "asked_formula", "space_group", "space_group_number", "log_likelihood", "valid", "reasons", "bond_score",
    "rank", "cluster_size", "energy", "model", "seed", "index",
)  # fmt: skip
"""What goes with a crystal of a run, where it is known; `energy` in eV per atom."""


@dataclass(frozen=True, slots=True)
class Item:
    """One crystal on its way.

    Attributes:
        id: a file's name, different from all others.
        structure: ordered or not.
        cif: as it was written; None where it was not written as a CIF.
        facts: see `FACTS`.
    """

    id: str
    structure: Structure
    cif: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Exported:
    """What became of a collection.

    Attributes:
        path: file or folder.
        n: crystals in it.
        skipped: id and reason of each that is not.
    """

    path: Path
    n: int
    skipped: tuple[tuple[str, str], ...]


class _Writer(Protocol):
    def __call__(self, place: Path) -> contextlib.AbstractContextManager[Callable[[Item], None]]:
        """Open a place; what comes out takes crystals, and raises CrystallmError for one that cannot go."""
        ...


def export(
    source: str | os.PathLike[str],
    to: str,
    out: str | os.PathLike[str] | None = None,
    *,
    only_valid: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Exported:
    """Write the crystals of a collection in another format.

    Args:
        source: a run folder, or whatever `sources.read` reads.
        to: one of `FORMATS`.
        out: file or folder, which must not be there; a file named without an ending is given that of the
            format; by default the name of the source with that ending, in the folder at hand.
        only_valid: leave out crystals of a run that are not valid.
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
    n = 0
    try:
        _remove(new)
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of elements without an electronegativity, and of long names
            with writer(new) as write:
                for found in _items(source, only_valid=only_valid, progress=progress):
                    if not isinstance(found, Item):
                        skipped.append(found)
                        continue
                    try:
                        write(found)
                        n += 1
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
    return Exported(path, n, tuple(skipped))


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
    source: str | os.PathLike[str], *, only_valid: bool, progress: Callable[[int], None] | None
) -> Iterator[Item | tuple[str, str]]:
    """The crystals of a collection, or id and reason of each that is none."""
    from crystallm.sources import parsing

    names: Counter[str] = Counter()
    for number, (entry, row) in enumerate(_entries(Path(source)), 1):
        name = _file_name(entry.id)
        names[name] += 1
        if names[name] > 1:
            name = f"{name}-{names[name]}"
        if progress is not None:
            progress(number)
        if entry.text is None:
            yield name, entry.problem
            continue
        facts = {key: fact for key in FACTS if (fact := _fact(key, row.get(key))) is not None}
        if only_valid and facts.get("valid") is False:
            yield name, f"not valid: {facts.get('reasons', 'no reason is told')}"
            continue
        try:
            structure = parsing.structure(entry.text, entry.format)
        except CrystallmError as error:
            yield name, str(error)
            continue
        yield Item(name, structure, entry.text if entry.format == "cif" else None, facts)


def _fact(name: str, cell: Any) -> Any:
    """What a cell tells, of the type of its column: those of a CSV are texts. None for what is none."""
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


def _entries(source: Path) -> Iterator[tuple[Entry, dict[str, Any]]]:
    """Entries, with the rows of a run or a table beside."""
    from crystallm.sources import collection
    from crystallm.sources import entry as sources_entry
    from crystallm.sources.formats.tables import rows
    from crystallm.storage import run_folder

    tables = run_folder.result_files(source) if source.is_dir() else []
    if source.is_file() and source.name.lower().endswith(sources_entry.TABLES):
        tables = [source]
    if tables:
        for path in tables:
            yield from rows(path, FACTS)
    else:
        yield from ((entry, {}) for entry in collection.read(source))


def _file_name(name: str) -> str:
    """A name that every file system takes, no path among them."""
    return re.sub(r"[^\w.+-]+", "_", name).strip(".")[-100:] or "crystal"


def _ordered(item: Item) -> Structure:
    if not item.structure.is_ordered:
        raise InputError("sites shared by elements or partly empty, which this format cannot tell")
    return item.structure


def _formula(structure: Structure) -> str:
    return formula.short(structure.composition.formula)


def cif_of(item: Item) -> str:
    """Its CIF, as it was written, or in P1."""
    if item.cif is not None and "_symmetry_equiv_pos_as_xyz" in item.cif and "_atom_type_e" not in item.cif:
        return item.cif
    from pymatgen.io.cif import CifWriter

    return str(CifWriter(item.structure, significant_figures=8))


# --- how each format is written ---


@contextlib.contextmanager
def _folder(place: Path, ending: str, text: Callable[[Item], str]) -> Iterator[Callable[[Item], None]]:
    place.mkdir()
    yield lambda item: _put(place / f"{item.id}{ending}", text(item))


def _put(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _cifs(place: Path) -> contextlib.AbstractContextManager[Callable[[Item], None]]:
    return _folder(place, ".cif", cif_of)


def _poscars(place: Path) -> contextlib.AbstractContextManager[Callable[[Item], None]]:
    return _folder(place, ".vasp", _poscar)


def _poscar(item: Item) -> str:
    from pymatgen.io.vasp.inputs import Poscar

    structure = _ordered(item).get_sorted_structure()
    return str(Poscar(structure, comment=f"{item.id} {_formula(structure)}").get_str(significant_figures=10))


@contextlib.contextmanager
def _genbench(place: Path) -> Iterator[Callable[[Item], None]]:
    names: list[str] = []
    with _cifs(place) as write:

        def add(item: Item) -> None:
            _ordered(item)
            write(item)
            names.append(f"{item.id}.cif")

        yield add
    _put(place / "structures.txt", "".join(f"{name}\n" for name in names))


@contextlib.contextmanager
def _extxyz(place: Path) -> Iterator[Callable[[Item], None]]:
    with place.open("w", encoding="utf-8") as file:

        def write(item: Item) -> None:
            structure = _ordered(item)
            facts = {"id": item.id, **item.facts}
            if "energy" in facts:
                facts |= {"energy": facts["energy"] * len(structure), "energy_per_atom": facts["energy"]}
            file.write(conversion.frame(structure, facts))

        yield write


@contextlib.contextmanager
def _database(place: Path) -> Iterator[Callable[[Item], None]]:
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.db import connect

    with connect(place) as opened:

        def write(item: Item) -> None:
            atoms = conversion.to_atoms(_ordered(item))
            facts = dict(item.facts)
            if "energy" in facts:
                atoms.calc = SinglePointCalculator(atoms, energy=facts.pop("energy") * len(atoms))
            # ASE keeps names like `energy` and `id` for itself.
            known = {f"crystal_{key}" if key in _TAKEN else key: _cell(v) for key, v in facts.items()}
            opened.write(atoms, material_id=_cell(item.id), key_value_pairs=known)

        yield write


_TAKEN = {"id", "energy", "seed", "index", "formula"}


def _cell(value: Any) -> Any:
    """A value that ASE takes: its numbers have 64 bits, and texts may not read as numbers."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int) and abs(value) >= 2**63:
        return f"#{value}"
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            float({"true": "1", "false": "0"}.get(value.lower(), value))
            return f"#{value}"
    return value


@contextlib.contextmanager
def _csv(place: Path) -> Iterator[Callable[[Item], None]]:
    names = ("id", "formula", "n_atoms", "a", "b", "c", "alpha", "beta", "gamma", "volume", *FACTS, "cif")
    with place.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()

        def write(item: Item) -> None:
            lattice = item.structure.lattice
            cell = zip(("a", "b", "c", "alpha", "beta", "gamma"), lattice.parameters, strict=True)
            writer.writerow(
                item.facts
                | {name: round(value, 6) for name, value in cell}
                | {"id": item.id, "formula": _formula(item.structure), "n_atoms": len(item.structure)}
                | {"volume": round(lattice.volume, 6), "cif": cif_of(item)}
            )

        yield write


@contextlib.contextmanager
def _pymatgen(place: Path) -> Iterator[Callable[[Item], None]]:
    first = True
    with place.open("w", encoding="utf-8") as file:

        def write(item: Item) -> None:
            nonlocal first
            record = {"id": item.id, **item.facts, "structure": item.structure.as_dict()}
            file.write(("[\n" if first else ",\n") + json.dumps(record))
            first = False

        yield write
        file.write("[]\n" if first else "\n]\n")


@contextlib.contextmanager
def _optimade(place: Path) -> Iterator[Callable[[Item], None]]:
    with place.open("w", encoding="utf-8") as file:
        for head in optimade.heads():
            file.write(json.dumps(head) + "\n")

        def write(item: Item) -> None:
            record = optimade.resource(item.id, _ordered(item), item.facts)
            optimade.check(record)
            file.write(json.dumps(record) + "\n")

        yield write


FORMATS: dict[str, tuple[str, _Writer]] = {
    "cif": ("", _cifs),
    "poscar": ("", _poscars),
    "extxyz": (".extxyz", _extxyz),
    "ase": (".db", _database),
    "csv": (".csv", _csv),
    "pymatgen": (".json", _pymatgen),
    "optimade": (".jsonl", _optimade),
    "genbench": ("", _genbench),
}
"""The ending of each format ("" for a folder), and what writes it."""
