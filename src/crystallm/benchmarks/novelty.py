"""Shares of generated crystals that are valid, unique, novel and, with energies, stable.

Two crystals are equal if `StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5)` fits their primitive cells,
their volumes scaled to each other. Of N generated crystals, each

- is valid if the checks of `crystallm.validity` pass, or as the caller says;
- is unique if it is the first of its duplicates. Valid crystals come before all others, in the given order; a
  crystal is compared only with the first of each earlier cluster;
- is novel if it equals no reference structure;
- is stable if its energy above the hull of known phases is e <= 0 eV/atom, metastable if e <= 0.1 eV/atom,
  both to within 1e-6 eV/atom.

Rates are over all N, and over the valid ones: valid, unique, novel, VUN (all three), stable, metastable,
S.U.N. (stable, unique and novel), and M.S.U.N. (metastable, unique and novel). A crystal that could not be
read or compared in time is neither unique nor novel, so that no rate profits from a failure; it counts as
undecided.

The paper compares crystals of equal composition of the conventional cell. This requires a symmetry search of
every reference structure, and separates a crystal from its own slight distortion, whose conventional cell may
differ. Here crystals are compared if they share their reduced formula (see `structures.known_structures`).
The matcher maps equal atoms one to one, so that no match is missed, and all matches of the paper are matches
here. A reference structure with shared sites equals no ordered crystal.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError, InputError, quiet_libraries
from crystallm.execution.tasks import Limits
from crystallm.structures import conversion, duplicates, known_structures
from crystallm.structures.known_structures import index

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from crystallm.structures.duplicates import OnDone
    from crystallm.structures.known_structures import ComparedSample

STABLE, METASTABLE = 0.0, 0.1
"""Bounds of the energy above the hull, eV/atom."""
ROUNDING = 1e-6
"""eV/atom: rounding places crystals on the hull about 1e-16 above or below it."""


def is_within(e_above_hull: float | None, bound: float) -> bool:
    """Return whether an energy above the hull is known and at most a bound, eV/atom, to within rounding."""
    return e_above_hull is not None and e_above_hull <= bound + ROUNDING


@dataclass(frozen=True, slots=True)
class NoveltyCheck:
    """Result of one generated crystal.

    Attributes:
        repeats: index of the crystal that it duplicates; None if unique or not compared.
        known: id of the reference structure that it equals; None for none.
        e_above_hull: eV/atom; None if unknown.
        reason: why it could not be compared, or not with all; "" if it was.
    """

    valid: bool
    unique: bool
    novel: bool
    repeats: int | None = None
    known: str | None = None
    e_above_hull: float | None = None
    reason: str = ""

    @property
    def vun(self) -> bool:
        """Valid, unique and novel."""
        return self.valid and self.unique and self.novel

    @property
    def stable(self) -> bool:
        """Whether the energy is known and on or below the hull."""
        return is_within(self.e_above_hull, STABLE)

    @property
    def metastable(self) -> bool:
        """Whether the energy is known and at most 0.1 eV/atom above the hull; includes stable crystals."""
        return is_within(self.e_above_hull, METASTABLE)


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares of n crystals, 0 to 1; NaN without crystals, or without the energies that a share needs.

    vun: valid, unique and novel; sun, msun: stable or metastable, and unique and novel; others: see the
        module.
    """

    n: int
    valid: float
    unique: float
    novel: float
    vun: float
    stable: float
    metastable: float
    sun: float
    msun: float


@dataclass(frozen=True, slots=True)
class NoveltyResult:
    """Results of all generated crystals, and rates.

    Attributes:
        n_compared: number of those that share a formula with a generated crystal.
        n_unreadable: number of those without readable formula, or with a generated formula that could not be
            read or compared.
        n_undecided: number of generated crystals that could not be compared, or not with all.
    """

    crystals: tuple[NoveltyCheck, ...]
    overall: Rates
    among_valid: Rates
    n_known: int
    n_compared: int
    n_unreadable: int
    n_undecided: int


def evaluate(
    generated: Sequence[ComparedSample],
    known: Iterable[tuple[str, str]],
    *,
    valid: Sequence[bool] | None = None,
    e_above_hull: Sequence[float | None] | None = None,
    workers: int = 1,
    seconds: float = 60.0,
    on_done: OnDone | None = None,
) -> NoveltyResult:
    """Determine which of the generated crystals are valid, unique, novel and stable.

    Args:
        generated: structures, CIFs, standard texts, or None for a sample that is not a crystal.
        known: ids and CIFs of the reference structures, streamed once; see `read_known`.
        valid: validity of the generated crystals, if checked already; else `validity` checks standard texts
            as they are, and all others symmetrized.
        e_above_hull: energy of each generated crystal above the hull of known phases, eV/atom; None for a
            crystal without one, or for no energies.
        seconds: limit of one task, a handful of comparisons.
        on_done: called with a stage (`reading`, `telling apart`, `known`, `comparing`), the number done, and
            the total (0 if unknown); from any thread.

    Raises:
        InputError: no generated crystals, or different numbers of crystals and values.
    """
    if not generated:
        raise InputError("no generated crystals: give at least one")
    for name, values in (("values of valid", valid), ("energies", e_above_hull)):
        if values is not None and len(values) != len(generated):
            raise InputError(f"{len(values)} {name} for {len(generated)} crystals: give one for each")
    runner = duplicates.ComparisonRunner(None, workers, Limits(seconds), on_done)
    keys = [None if sample is None else json.dumps(conversion.to_json(sample)) for sample in generated]
    crystals = duplicates.reduce_all(
        keys, runner, function=check_and_reduce_record if valid is None else duplicates.reduce_record
    )
    validity = [c.valid for c in crystals] if valid is None else list(valid)
    by_validity = sorted(range(len(crystals)), key=lambda i: not validity[i])
    repeats = duplicates.find_duplicates(crystals, runner, order=by_validity, head_first=False)
    wanted = {c.formula for c in crystals if c.formula}
    rows = index(known, wanted, runner)
    matches, unreadable = known_structures.find_matches(crystals, rows, runner)
    energies = [None] * len(keys) if e_above_hull is None else e_above_hull
    results = []
    for i, crystal in enumerate(crystals):
        repeated, match = repeats.matched.get(i), matches.matched.get(i)
        not_compared = crystal.reason or repeats.failed.get(i, "")
        not_matched = crystal.reason or matches.failed.get(i, "")
        results.append(
            NoveltyCheck(
                valid=validity[i],
                unique=not not_compared and repeated is None,
                novel=not not_matched and match is None,
                repeats=repeated,
                known=None if match is None else rows.rows[crystal.formula][match][0],
                e_above_hull=energies[i],
                reason=not_compared or not_matched,
            )
        )
    with_energies = e_above_hull is not None
    return NoveltyResult(
        crystals=tuple(results),
        overall=rates(results, with_energies=with_energies),
        among_valid=rates([result for result in results if result.valid], with_energies=with_energies),
        n_known=rows.n_rows,
        n_compared=sum(map(len, rows.rows.values())),
        n_unreadable=rows.n_unreadable + unreadable,
        n_undecided=sum(bool(result.reason) for result in results),
    )


def check_and_reduce_record(task: Mapping[str, Any]) -> dict[str, Any]:
    """Check a crystal and return the record of a `ReducedStructure`; runs in a worker process."""
    from crystallm.sources import parsing
    from crystallm.validity import checks

    reduced = duplicates.reduce_record(task)
    record = json.loads(task["sample"])
    with quiet_libraries():
        try:
            text = record.get("text") or parsing.to_cif(conversion.from_json(record))
        except CrystallmError:
            return reduced
        return {**reduced, "valid": checks.check(text, what="auto").valid}


def rates(results: Sequence[NoveltyCheck], *, with_energies: bool) -> Rates:
    """Compute rates over results."""

    def share(name: str, of: Sequence[NoveltyCheck] = results) -> float:
        defined = results and (with_energies or not name.endswith("stable"))
        return sum(getattr(result, name) for result in of) / len(results) if defined else math.nan

    new = [result for result in results if result.unique and result.novel]
    names = ("valid", "unique", "novel", "vun", "stable", "metastable")
    shares = {name: share(name) for name in names}
    return Rates(len(results), **shares, sun=share("stable", new), msun=share("metastable", new))


def read_known(paths: Iterable[str | Path]) -> Iterator[tuple[str, str]]:
    """Yield ids and CIFs of collections; "" for an entry without a crystal."""
    from crystallm.sources import collection

    for path in paths:
        for entry in collection.read_cifs(path):
            yield entry.id, entry.text or ""
