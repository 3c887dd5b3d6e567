"""Structures written in every kind of collection that is read, as the tools write them that people use."""

from __future__ import annotations

import csv
import gzip
import io
import json
import pickle
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from crystallm.errors import InputError
from crystallm.sources import collection

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pymatgen.core import Structure

    Book = Mapping[str, Structure]
    Write = Callable[[Path, Book], None]


def cif(structure: Structure) -> str:
    return str(structure.to(fmt="cif"))


def optimade(name: str, structure: Structure) -> dict[str, Any]:
    symbols = [site.specie.symbol for site in structure]
    attributes = {
        "lattice_vectors": structure.lattice.matrix.tolist(),
        "cartesian_site_positions": structure.cart_coords.tolist(),
        "species_at_sites": symbols,
        "species": [
            {"name": s, "chemical_symbols": [s], "concentration": [1.0]} for s in dict.fromkeys(symbols)
        ],
        "dimension_types": [1, 1, 1],
    }
    return {"type": "structures", "id": name, "attributes": attributes}


def atoms(name: str, structure: Structure) -> Any:
    from ase import Atoms

    return Atoms(
        [site.specie.symbol for site in structure],
        positions=structure.cart_coords,
        cell=structure.lattice.matrix,
        pbc=True,
        info={"material_id": name, "energy_of_somebody": -1.5},
    )


def folder_of(form: str, ending: str) -> Write:
    def write(path: Path, book: Book) -> None:
        path.mkdir()
        for name, structure in book.items():
            (path / f"{name}{ending}").write_text(structure.to(fmt=form))

    return write


def tar(path: Path, book: Book) -> None:
    mode = {"gz": "w:gz", "tgz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}.get(path.name.split(".")[-1], "w")
    with tarfile.open(path, mode) as archive:
        for number, (name, structure) in enumerate(book.items()):
            form, ending = (("cif", ".cif"), ("poscar", ".vasp"))[number % 2]
            content = structure.to(fmt=form).encode()
            member = tarfile.TarInfo(f"deep/{name}{ending}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def zipped(path: Path, book: Book) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, structure in book.items():
            archive.writestr(f"deep/{name}.cif.gz", gzip.compress(cif(structure).encode()))
        archive.writestr("notes.txt", "no crystal")


def table(column: str, value: Callable[[Structure], str]) -> Write:
    def write(path: Path, book: Book) -> None:
        with (gzip.open if path.suffix == ".gz" else open)(path, "wt", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["material_id", column, "split"])
            writer.writerows((name, value(structure), "val") for name, structure in book.items())

    return write


def csv_optimade(path: Path, book: Book) -> None:
    rows = [
        {"immutable_id": name, **optimade(name, structure)["attributes"]} for name, structure in book.items()
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(
            {key: value if key == "immutable_id" else json.dumps(value) for key, value in row.items()}
            for row in rows
        )


def parquet(row: Callable[[str, Structure], dict[str, Any]]) -> Write:
    def write(path: Path, book: Book) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        rows = [row(name, structure) for name, structure in book.items()]
        parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=500)

    return write


def as_struct(structure: Structure) -> dict[str, Any]:
    record = structure.as_dict()
    sites = [{key: site[key] for key in ("species", "abc", "xyz", "label")} for site in record["sites"]]
    return {"@module": record["@module"], "lattice": record["lattice"], "sites": sites}


def document(content: Callable[[Book], Any]) -> Write:
    def write(path: Path, book: Book) -> None:
        text = json.dumps(content(book))
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())

    return write


def json_lines(items: Callable[[Book], list[Any]]) -> Write:
    def write(path: Path, book: Book) -> None:
        text = "".join(json.dumps(item) + "\n" for item in items(book))
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())

    return write


def frames(path: Path, book: Book) -> None:
    from ase.io import write

    text = io.StringIO()
    write(text, [atoms(name, structure) for name, structure in book.items()], format="extxyz")
    packed = path.suffix == ".gz"
    path.write_bytes(gzip.compress(text.getvalue().encode()) if packed else text.getvalue().encode())


def database(path: Path, book: Book) -> None:
    from ase.db import connect

    with connect(path) as opened:
        for name, structure in book.items():
            opened.write(atoms(name, structure), material_id=name, data={"tensor": [1.0, 2.0]})


def ase_json(path: Path, book: Book) -> None:
    from ase.io import write

    write(path, [atoms(name, structure) for name, structure in book.items()], format="json")


def pickled(protocol: int) -> Write:
    def write(path: Path, book: Book) -> None:
        content = pickle.dumps([(name, cif(s)) for name, s in book.items()], protocol=protocol)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)

    return write


def one_cif(path: Path, book: Book) -> None:
    text = "data_global\n_publ_section_title\n;\ndata_of a title\n;\n"
    path.write_text(text + "\n".join(cif(s).replace("data_", f"data_{name}_", 1) for name, s in book.items()))


def entry(name: str, structure: Structure) -> dict[str, Any]:
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    return dict(ComputedStructureEntry(structure, -1.0, entry_id=name).as_dict())


def named(book: Book) -> list[dict[str, Any]]:
    return [{"material_id": name, "structure": s.as_dict()} for name, s in book.items()]


def responses(book: Book) -> list[dict[str, Any]]:
    return [optimade(name, s) for name, s in book.items()]


HEADS = [{"x-optimade": {"meta": {}}}, {"type": "info", "id": "structures", "properties": {}}]

IDS: dict[str, Callable[[int, str], str]] = {
    "name": lambda number, name: name,
    "number": lambda number, name: str(number),
    "from 1": lambda number, name: str(number + 1),
    "deep": lambda number, name: f"deep/{name}",
}
"""What ids a kind gives: its number in the collection, and the name that it was written with."""

KINDS: dict[str, tuple[Write, str]] = {
    "cifs": (folder_of("cif", ".cif"), "name"),
    "poscars": (folder_of("poscar", ".vasp"), "name"),
    "all.tar": (tar, "deep"),
    "all.tar.gz": (tar, "deep"),
    "all.tgz": (tar, "deep"),
    "all.tar.bz2": (tar, "deep"),
    "all.tar.xz": (tar, "deep"),
    "all.zip": (zipped, "deep"),
    "cif.csv": (table("cif", cif), "name"),
    "cif.csv.gz": (table("cif", cif), "name"),
    "structure.csv": (table("structure", lambda s: json.dumps(s.as_dict())), "name"),
    "optimade.csv": (csv_optimade, "name"),
    "cif.parquet": (parquet(lambda n, s: {"id": n, "cif": cif(s)}), "name"),
    "structure.parquet": (
        parquet(lambda n, s: {"material_id": n, "structure": json.dumps(s.as_dict())}),
        "name",
    ),
    "struct.parquet": (parquet(lambda n, s: {"y": 1.0, "structure": as_struct(s)}), "number"),
    "optimade.parquet": (
        parquet(lambda n, s: {"immutable_id": n, **optimade(n, s)["attributes"]}),
        "name",
    ),
    "all.extxyz": (frames, "name"),
    "all.xyz.gz": (frames, "name"),
    "all.db": (database, "name"),
    "list.json": (document(lambda book: [s.as_dict() for s in book.values()]), "number"),
    "named.json.gz": (document(named), "name"),
    "entries.json": (document(lambda book: [entry(n, s) for n, s in book.items()]), "name"),
    "mapping.json": (document(lambda book: {n: s.as_dict() for n, s in book.items()}), "name"),
    "matbench.json.gz": (
        document(lambda b: {"index": [1], "columns": ["y"], "data": [[s.as_dict(), 1] for s in b.values()]}),
        "number",
    ),
    "optimade.json": (document(lambda book: {"meta": {}, "data": responses(book), "links": {}}), "name"),
    "ase.json": (ase_json, "from 1"),
    "structures.jsonl": (json_lines(lambda book: [s.as_dict() for s in book.values()]), "number"),
    "named.ndjson": (json_lines(named), "name"),
    "cifs.jsonl.gz": (json_lines(lambda b: [{"id": n, "cif": cif(s)} for n, s in b.items()]), "name"),
    "optimade.jsonl": (json_lines(lambda book: HEADS + responses(book)), "name"),
    "one.cif": (one_cif, "blocks"),
    **{f"protocol{n}.pkl": (pickled(n), "name") for n in range(6)},
    "packed.pkl.gz": (pickled(4), "name"),
}
"""For each file name what writes it, and which ids it gives."""


def written(tmp_path: Path, name: str, book: Book) -> Path:
    """A collection of this kind."""
    path = tmp_path / name
    KINDS[name][0](path, book)
    return path


def equal(one: Structure, other: Structure) -> None:
    """Same elements at the same places of the same cell, whatever their order and the cell's orientation."""
    assert sorted(site.specie.symbol for site in one) == sorted(site.specie.symbol for site in other)
    assert one.lattice.parameters == pytest.approx(other.lattice.parameters, abs=1e-4)
    sites = [
        [(site.specie.symbol, *np.round(site.frac_coords % 1 + 1e-4, 3) % 1) for site in s]
        for s in (one, other)
    ]
    np.testing.assert_allclose(
        [site[1:] for site in sorted(sites[0])], [site[1:] for site in sorted(sites[1])], atol=2e-3
    )


def refused(path: Path) -> str:
    """The one line that is said of a collection."""
    with pytest.raises(InputError) as caught:
        list(collection.read(path))
    assert "\n" not in str(caught.value)
    assert str(path.name) in str(caught.value)
    return str(caught.value)
