"""Which structures are equal, told in a worker process: see `answers`, which asks.

Imported by such a process alone, and with all that it takes to compare: where a package is missing, the
process says so before it is given anything, and no comparison is lost in silence. Refuses to know what the
structures are for.
"""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any

from pymatgen.core.structure_matcher import StructureMatcher

from crystallm.errors import CrystallmError
from crystallm.structures import comparison, conversion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymatgen.core import Structure


MAX_STRETCH = 1000.0
"""L^3 / V of a reduced cell beyond which a crystal equals none: no compound of the corpus has half of it."""


def fold_record(task: Mapping[str, Any]) -> list[int]:
    """Number the clusters of packed structures of one reduced formula."""
    until = time.monotonic() + task["seconds"]
    # Cells are made primitive once, here, and not again in each comparison.
    matcher = StructureMatcher(primitive_cell=False)
    heads: list[tuple[Structure, float, int]] = []  # the first of each cluster, its stretch, its number
    numbers: list[int] = []
    n_clusters = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns of each radius and electronegativity it lacks
        for record in task["structures"]:
            known = _primitive(record) if time.monotonic() < until else None
            number = None
            if known is not None:
                structure, stretch = known
                number = next(
                    (
                        number
                        for head, other, number in heads
                        if len(head) == len(structure)
                        and max(stretch, other) <= comparison.MAX_STRETCH * min(stretch, other)
                        and time.monotonic() < until
                        and matcher.fit(head, structure)
                    ),
                    None,
                )
            if number is None:
                number = n_clusters
                n_clusters += 1
                if known is not None:
                    heads.append((*known, number))
            numbers.append(number)
    return numbers


def _primitive(record: Mapping[str, Any]) -> tuple[Structure, float] | None:
    """The primitive cell of a packed structure and its stretch; None for one that is not compared."""
    try:
        structure = conversion.from_json(record)
    except CrystallmError:
        return None
    if len(structure) > comparison.MAX_ATOMS or not 0 < comparison.stretch(structure.lattice) < MAX_STRETCH:
        return None
    primitive = structure.get_reduced_structure().get_primitive_structure()
    return primitive, comparison.stretch(primitive.lattice)
