"""Write a collection in each format."""

from __future__ import annotations

import contextlib
import csv
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from crystallm.crystallography import formula
from crystallm.errors import InputError
from crystallm.export import optimade
from crystallm.structures import conversion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pymatgen.core import Structure

FACTS = (
    "requested_formula", "conditions", "space_group", "space_group_number", "log_likelihood", "valid",
    "plausible", "reasons", "bond_score", "rank", "cluster_size", "energy", "formation_energy",
    "e_above_hull", "model", "seed", "sample_index",
)  # fmt: skip
"""Properties that are written with a crystal of a run, if known; energies in eV/atom. `conditions` were
requested, `density=5.2`."""


@dataclass(frozen=True, slots=True)
class Item:
    """One crystal on its way.

    Attributes:
        id: a file's name, different from all others.
        structure: ordered or not.
        cif: as it was written; None where it was not written as a CIF.
        facts: see `FACTS`.
        note: how it was read, where that had to be decided.
    """

    id: str
    structure: Structure
    cif: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    note: str = ""


class _Writer(Protocol):
    def __call__(self, place: Path) -> contextlib.AbstractContextManager[Callable[[Item], None]]:
        """Open a path; the result writes items, and raises CrystallmError for one that it cannot write."""
        ...


def file_name(name: str) -> str:
    """Return a name that every file system accepts, without folders."""
    return re.sub(r"[^\w.+-]+", "_", name).strip(".")[-100:] or "crystal"


def ordered(item: Item) -> Structure:
    """Return the structure of an item, or raise InputError if a site is shared or partly empty."""
    if not item.structure.is_ordered:
        raise InputError("sites shared by elements or partly empty, which this format cannot tell")
    return item.structure


def formula_of(structure: Structure) -> str:
    """Return the formula of a structure in its short form."""
    return formula.of_atoms(structure.composition.get_el_amt_dict())


def cif_of(item: Item) -> str:
    """Return the CIF of the item as it was written, or in P1."""
    if item.cif is not None and "_symmetry_equiv_pos_as_xyz" in item.cif and "_atom_type_e" not in item.cif:
        return item.cif
    from crystallm.sources import parsing

    return parsing.to_cif(item.structure)


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

    structure = ordered(item).get_sorted_structure()
    return str(
        Poscar(structure, comment=f"{item.id} {formula_of(structure)}").get_str(significant_figures=10)
    )


@contextlib.contextmanager
def _genbench(place: Path) -> Iterator[Callable[[Item], None]]:
    names: list[str] = []
    with _cifs(place) as write:

        def add(item: Item) -> None:
            ordered(item)
            write(item)
            names.append(f"{item.id}.cif")

        yield add
    _put(place / "structures.txt", "".join(f"{name}\n" for name in names))


@contextlib.contextmanager
def _extxyz(place: Path) -> Iterator[Callable[[Item], None]]:
    with place.open("w", encoding="utf-8") as file:

        def write(item: Item) -> None:
            structure = ordered(item)
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
            atoms = conversion.to_atoms(ordered(item))
            facts = dict(item.facts)
            if "energy" in facts:
                atoms.calc = SinglePointCalculator(atoms, energy=facts.pop("energy") * len(atoms))
            # ASE keeps names like `energy` and `id` for itself.
            known = {f"crystal_{key}" if key in _TAKEN else key: _cell(v) for key, v in facts.items()}
            opened.write(atoms, material_id=_cell(item.id), key_value_pairs=known)

        yield write


_TAKEN = {"id", "energy", "seed", "sample_index", "formula"}


def _cell(value: Any) -> Any:
    """Return a value that ASE accepts: its numbers have 64 bits, and texts must not look like numbers."""
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
                | {"id": item.id, "formula": formula_of(item.structure), "n_atoms": len(item.structure)}
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
            record = optimade.resource(item.id, ordered(item), item.facts)
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
"""The file ending of each format ("" for a folder), and its writer."""
