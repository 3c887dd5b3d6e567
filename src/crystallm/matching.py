"""What it takes to compare many structures safely: structures as JSON for worker processes, and freak cells.

pymatgen's StructureMatcher decides whether two structures are equal; here stands what may be handed to it.
Refuses to know who asks: the benchmark of structure prediction, or the folding of equal answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymatgen.core import Lattice, Structure

MAX_ATOMS = 500
"""Atoms beyond which a structure is not compared."""
MAX_STRETCH = 14.0
"""See `too_stretched`."""


def pack(sample: Structure | str) -> dict[str, Any]:
    """A structure or text as JSON.

    Raises:
        InputError: neither.
    """
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


def unpack(record: Mapping[str, Any]) -> Structure:
    """The structure of a record of `pack`.

    Raises:
        CrystallmError: its text is no crystal.
    """
    if "text" in record:
        from crystallm import validity

        return validity.read_structure(record["text"])
    from pymatgen.core import Structure

    return Structure(record["lattice"], record["species"], record["coords"])


def too_stretched(sample: Structure, truth: Structure) -> bool:
    """Whether the sample's cell is so much longer or flatter than the truth's that they can't match.

    The matcher looks for the truth's lattice among all vectors of the sample's lattice up to 1.3 times the
    longest one, some s = L^3 / V of them; for a needle of a cell that is gigabytes. A match needs three
    vectors of one lattice whose lengths are within 30 % of the reduced ones of the other, at equal volume.
    With V <= L1 L2 L3 <= sqrt(2) V for reduced cells, the longest ones differ by at most 1.3^2 sqrt(2) = 2.4
    times, and the s of primitive cells by at most 14 times.
    """
    bound = MAX_STRETCH * stretch(truth.lattice)
    if stretch(sample.lattice) <= bound:
        return False
    return stretch(sample.get_primitive_structure().lattice) > MAX_STRETCH * stretch(
        truth.get_primitive_structure().lattice
    )


def stretch(lattice: Lattice) -> float:
    """L^3 / V of the reduced cell, L its longest vector; 0 where spglib can't reduce it."""
    import numpy as np
    import spglib

    matrix: Any = lattice.matrix
    try:
        reduced = spglib.niggli_reduce(matrix)  # pymatgen's own takes half a minute for a needle
    except Exception:  # noqa: BLE001 - spglib's errors differ between versions; the limits of the worker remain
        return 0.0
    return 0.0 if reduced is None else float(np.linalg.norm(reduced, axis=1).max() ** 3 / lattice.volume)
