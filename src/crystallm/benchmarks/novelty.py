"""How many generated crystals are valid, unique and novel; with energies, how many are stable, too.

Two crystals are equal if `StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5)` fits their primitive cells,
their volumes scaled to each other. Of N generated crystals, each one

- is valid if the checks of `crystallm.validity` pass, or as the caller says;
- is unique if it is the first of its equals. Valid crystals come before all others, each in the order given;
  a crystal is compared with the first ones of earlier equals only;
- is novel if it equals no crystal of the known set;
- is stable if its energy above the hull of known phases is e <= 0 eV/atom, metastable if e <= 0.1 eV/atom.

Rates are over all N, and again over the valid ones alone: valid, unique, novel, VUN (all three), stable,
metastable, S.U.N. (stable, unique and novel), and the same of the metastable ones. What could not be read or
compared in time is neither unique nor novel: no rate profits from a failure. It is counted as undecided.

The paper compares within equal composition of the conventional cell. That asks for a symmetry search of every
known crystal, and parts a crystal from its own slight distortion, whose conventional cell may be another one.
Here crystals are filed under their reduced formula (see `known_set`): equal ones always share it, for the
matcher maps atoms onto like atoms, one to one, so that no match is missed, and what the paper finds equal is
equal here. A known crystal with shared sites equals no ordered one.

Refuses to know how crystals are compared (`equals` does), and where they and their energies come from.
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
"""eV/atom above the hull."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one generated crystal.

    Attributes:
        valid, unique, novel: see the module.
        repeats: index of the crystal that it equals; None for a unique one, or one that was not compared.
        known: id of the known crystal that it equals; None for none.
        e_above_hull: eV/atom; None where it is not known.
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
        """Whether its energy is known and on the hull or below."""
        return self.e_above_hull is not None and self.e_above_hull <= STABLE

    @property
    def metastable(self) -> bool:
        """Whether its energy is known and at most 0.1 eV/atom above the hull; stable ones are, too."""
        return self.e_above_hull is not None and self.e_above_hull <= METASTABLE


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares of n crystals, 0 to 1; NaN of no crystals, and of what asks for energies where none were given.

    vun: valid, unique and novel; sun, msun: stable or metastable, and unique and novel; others: the module.
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
    """Verdicts on generated crystals, and what they add up to.

    Attributes:
        crystals: one verdict a crystal, in their order.
        overall: rates over all of them.
        among_valid: rates over the valid ones.
        n_known: known crystals that were streamed.
        n_compared: those of them that share a formula with a generated one.
        n_unreadable: those without a readable formula, or of a generated one and not to be read or compared.
        n_undecided: generated crystals that could not be compared, or not with all.
    """

    crystals: tuple[Verdict, ...]
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
    memory_gb: float = 4.0,
    on_done: OnDone | None = None,
) -> NoveltyResult:
    """Which of the generated crystals are valid, unique, novel and stable.

    Args:
        generated: structures, CIFs, standard texts, or None for what is no crystal.
        known: ids and CIFs of the known set, streamed once; `read_known` reads them from collections.
        valid: verdicts on the generated crystals, if they have been judged; else `validity` judges texts of
            ours as they stand, and all else symmetrised.
        e_above_hull: energy of each generated crystal above the hull of known phases, eV/atom; None for
            those that have none, or for no energies at all.
        workers: processes at a time, each of which can be lost.
        seconds: limit for one task, a handful of comparisons.
        memory_gb: limit for one process, GiB.
        on_done: called with a stage (`reading`, `telling apart`, `known`, `comparing`), what of it is done,
            and the whole (0 where it is not known); from any thread.

    Raises:
        InputError: nothing generated, or verdicts or energies of another number than the crystals.
        CrystallmError: no worker could be started.
    """
    if not generated:
        raise InputError("no generated crystals: give at least one")
    for name, values in (("verdicts", valid), ("energies", e_above_hull)):
        if values is not None and len(values) != len(generated):
            raise InputError(f"{len(values)} {name} for {len(generated)} crystals: give one for each")
    runner = duplicates.ComparisonRunner(None, workers, Limits(seconds, memory_gb), on_done)
    keys = [None if sample is None else json.dumps(conversion.to_json(sample)) for sample in generated]
    crystals = duplicates.reduce_all(
        keys, runner, function=check_and_reduce_record if valid is None else duplicates.reduce_record
    )
    verdicts = [c.valid for c in crystals] if valid is None else list(valid)
    by_validity = sorted(range(len(crystals)), key=lambda i: not verdicts[i])
    repeats = duplicates.find_duplicates(crystals, runner, order=by_validity, head_first=False)
    wanted = {c.formula for c in crystals if c.formula}
    rows = index(known, wanted, on_row=lambda n: runner.report("known", n, 0))
    matches, unreadable = known_structures.find_matches(crystals, rows, runner)
    energies = [None] * len(keys) if e_above_hull is None else e_above_hull
    found = []
    for i, crystal in enumerate(crystals):
        repeated, match = repeats.matched.get(i), matches.matched.get(i)
        untold = crystal.reason or repeats.failed.get(i, "")
        unmatched = crystal.reason or matches.failed.get(i, "")
        found.append(
            Verdict(
                valid=verdicts[i],
                unique=not untold and repeated is None,
                novel=not unmatched and match is None,
                repeats=repeated,
                known=None if match is None else rows.rows[crystal.formula][match][0],
                e_above_hull=energies[i],
                reason=untold or unmatched,
            )
        )
    with_energies = e_above_hull is not None
    return NoveltyResult(
        crystals=tuple(found),
        overall=rates(found, with_energies=with_energies),
        among_valid=rates([v for v in found if v.valid], with_energies=with_energies),
        n_known=rows.n_rows,
        n_compared=sum(map(len, rows.rows.values())),
        n_unreadable=rows.n_unreadable + unreadable,
        n_undecided=sum(bool(v.reason) for v in found),
    )


def check_and_reduce_record(task: Mapping[str, Any]) -> dict[str, Any]:
    """Check a crystal and return the record of a `ReducedStructure`; runs in a worker process."""
    from crystallm.validity import checks

    reduced = duplicates.reduce_record(task)
    record = json.loads(task["sample"])
    with quiet_libraries():
        try:
            text = record.get("text") or conversion.from_json(record).to(fmt="cif")
        except CrystallmError:
            return reduced
        return {**reduced, "valid": checks.check(text, what="auto").valid}


def rates(verdicts: Sequence[Verdict], *, with_energies: bool) -> Rates:
    """The rates that follow from verdicts."""

    def share(name: str, of: Sequence[Verdict] = verdicts) -> float:
        known = verdicts and (with_energies or not name.endswith("stable"))
        return sum(getattr(v, name) for v in of) / len(verdicts) if known else math.nan

    new = [v for v in verdicts if v.unique and v.novel]
    names = ("valid", "unique", "novel", "vun", "stable", "metastable")
    shares = {name: share(name) for name in names}
    return Rates(len(verdicts), **shares, sun=share("stable", new), msun=share("metastable", new))


def read_known(paths: Iterable[str | Path]) -> Iterator[tuple[str, str]]:
    """Ids and CIFs of collections, one after the other; "" for what is no crystal.

    Raises:
        InputError: as `sources.read`.
    """
    from crystallm.sources import collection

    for path in paths:
        for entry in collection.read_cifs(path):
            yield entry.id, entry.text or ""
