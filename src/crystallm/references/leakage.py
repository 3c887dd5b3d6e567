"""Keep the answers of a benchmark out of a library.

A known crystal may be the entry itself (its id, or its reduced formula and space group), or a polymorph of it
(its reduced formula).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from crystallm.errors import CrystallmError, InputError
from crystallm.orbits import description
from crystallm.references.library import reduced
from crystallm.references.load import fingerprint, load_library

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from pymatgen.core import Structure

    from crystallm.references.library import Library
    from crystallm.references.options import ReferenceOptions

Rule = Literal["refuse", "nothing", "id", "formula-group", "formula"]
"""See `benchmarks.options.CspOptions.leave_out`."""


@dataclass(frozen=True, slots=True)
class BenchmarkEntries:
    """Entries of a benchmark.

    Attributes:
        ids: of all.
        formula_groups: reduced formula (see `library.reduced`) and number of the space group.
    """

    ids: frozenset[str]
    formula_groups: frozenset[tuple[str, int]]


def without_entries(library: Library, entries: BenchmarkEntries, rule: Rule) -> tuple[Library, int]:
    """Return the crystals of a library that may be used for some entries, and how many were left out.

    Raises:
        InputError: with the rule `refuse`, the library holds an entry.
    """
    if rule == "nothing":
        return replace(library, holds_answers=False), 0
    formulas: Collection[str] = {name for name, _ in entries.formula_groups} if rule == "formula" else ()
    groups = () if rule == "id" else entries.formula_groups
    allowed, left_out = library.without(ids=entries.ids, formula_groups=groups, formulas=formulas)
    if rule == "refuse" and left_out:
        names = ", ".join(f"{library.id(row)} ({library.formula(row)})" for row in left_out[:3])
        raise InputError(
            f"the library holds {len(left_out)} crystals of the test, such as {names}: leave them out with "
            "--leave-out formula-group, or those of the same id alone with --leave-out id"
        )
    return replace(allowed, holds_answers=False), len(left_out)


def library_for(
    entries: Iterable[tuple[str, Structure]], known: ReferenceOptions, rule: Rule
) -> tuple[Library, dict[str, Any]]:
    """Return the known crystals that may be used for a benchmark, and what its result says of them.

    Args:
        entries: id and structure of each entry.
        known: which known crystals.
        rule: what is left out.

    Raises:
        InputError: as `load_library` and `without_entries`.
    """
    ids, formula_groups = set(), set()
    for name, structure in entries:
        ids.add(name)
        with contextlib.suppress(CrystallmError):  # no symmetry: its id alone counts
            described = description.describe(structure)
            formula_groups.add((reduced(dict(described.composition)), described.space_group))
    held = BenchmarkEntries(frozenset(ids), frozenset(formula_groups))
    library, n_left_out = without_entries(load_library(known.references), held, rule)
    text = f"{len(library):,} known crystals"
    text += f", {n_left_out:,} left out by {rule}" if n_left_out else ""
    return library, {
        "from": known.crystals_from,
        "known": text,
        "library": fingerprint(library),
        "leave_out": rule,
        "left_out": n_left_out,
    }
