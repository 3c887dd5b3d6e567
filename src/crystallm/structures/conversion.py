"""Convert structures to and from JSON, ASE Atoms and frames of extended XYZ."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm.errors import InputError, install

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymatgen.core import Structure


def frame(structure: Structure, facts: Mapping[str, Any] | None = None) -> str:
    """Return a frame of extended XYZ: number of atoms, a comment with cell and facts, a line per atom.

    Args:
        structure: ordered. Cell and positions are written to 8 decimals, Å.
        facts: more pairs of the comment; None among them is left out. An energy is that of the cell, eV.
    """
    lattice = " ".join(f"{x:.8f}" for x in structure.lattice.matrix.ravel())
    pairs = "".join(f" {name}={_value(value)}" for name, value in (facts or {}).items() if value is not None)
    lines = [
        f"{len(structure)}",
        f'Lattice="{lattice}" Properties=species:S:1:pos:R:3{pairs} pbc="T T T"',
        *(f"{site.specie.symbol} {site.x:.8f} {site.y:.8f} {site.z:.8f}" for site in structure),
    ]
    return "".join(f"{line}\n" for line in lines)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "T" if value else "F"
    if isinstance(value, float):
        return f"{value:.8f}"
    # Quotes and line ends would end the pair or the comment.
    text = " ".join(str(value).replace('"', "'").split())
    return text if isinstance(value, int) else json.dumps(text, ensure_ascii=False)


def to_atoms(structure: Structure) -> Any:
    """Return ASE Atoms: symbols, positions (Å), cell (Å), periodic in three directions.

    Raises:
        InputError: ASE is not installed, or a site is shared or partly empty.
    """
    try:
        from ase import Atoms
    except ImportError:
        raise InputError(f"ASE is not installed: {install('ase')}") from None
    if not structure.is_ordered:
        raise InputError(f"{structure.formula}: ASE has no sites that are shared or partly empty")
    return Atoms(
        numbers=[site.specie.Z for site in structure],
        scaled_positions=structure.frac_coords,
        cell=structure.lattice.matrix,
        pbc=True,
    )


def to_json(sample: Structure | str) -> dict[str, Any]:
    """Return a structure or text as JSON. Raises InputError: neither."""
    if isinstance(sample, str):
        return {"text": sample}
    try:
        return {
            "lattice": sample.lattice.matrix.tolist(),
            "species": [site.specie.symbol if site.is_ordered else site.species.as_dict() for site in sample],
            "coords": sample.frac_coords.tolist(),
        }
    except AttributeError:
        raise InputError(
            f"can't compare {type(sample).__name__}: give pymatgen structures, CIFs or standard texts"
        ) from None


def from_json(record: Mapping[str, Any]) -> Structure:
    """Return the structure of a record of `to_json`.

    Raises:
        CrystallmError: its text is no crystal.
    """
    return read_json(record)[0]


def read_json(record: Mapping[str, Any]) -> tuple[Structure, tuple[str, ...]]:
    """Return the structure of a record of `to_json`, and notes on how its text was read.

    Raises:
        CrystallmError: its text is no crystal.
    """
    if "text" in record:
        from crystallm.sources import parsing

        found = parsing.read(record["text"])
        return found.structure, found.notes
    from pymatgen.core import Structure

    return Structure(record["lattice"], record["species"], record["coords"]), ()


def to_structure(atoms: Any) -> Structure:
    """Return the structure of ASE Atoms, in the same order.

    Raises:
        InputError: they are not periodic in three directions.
    """
    from pymatgen.core import Structure

    if not all(atoms.pbc):
        raise InputError(
            f"the atoms have pbc = {list(map(bool, atoms.pbc))}: a crystal is periodic in three directions"
        )
    return Structure(
        np.array(atoms.cell), atoms.get_chemical_symbols(), atoms.get_positions(), coords_are_cartesian=True
    )
