"""Clusters of equal structures, in worker processes."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from pymatgen.core.structure_matcher import StructureMatcher

from crystallm.errors import CrystallmError
from crystallm.execution.mapping import run_tasks
from crystallm.execution.tasks import DEFAULT_LIMITS, Failure, Limits
from crystallm.structures import comparison, conversion
from crystallm.structures.comparison import formula_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Executor

    from pymatgen.core import Structure

    OnDone = Callable[[str, int, int], None]


LTOL, STOL, ANGLE_TOL = 0.2, 0.3, 5.0
"""Shares of a length and of (V / n_atoms)^(1/3), degrees."""

MAX_STRETCH = 1000.0
"""L^3 / V of a reduced cell beyond which a crystal is not compared; see `matching.stretch`."""

FOLDED = 64
"""Crystals of one formula that are told apart in one task; fewer after one was lost."""


@dataclass(frozen=True, slots=True)
class Crew:
    """Worker processes with their limits, and who hears of what is done."""

    executor: Executor | None = None
    workers: int = 1
    limits: Limits = DEFAULT_LIMITS
    on_done: OnDone | None = None

    def run(self, function: str, tasks: Sequence[Any], stage: str = "") -> list[Any]:
        """Apply a function, given by its full name, to tasks."""
        done: list[int] = []  # of tasks; to append is atomic

        def count(number: int) -> None:
            done.append(number)
            if stage:
                self.report(stage, len(done), len(tasks))

        return run_tasks(
            self.executor, function, tasks, workers=self.workers, limits=self.limits, on_done=count
        )

    def report(self, stage: str, done: int, total: int) -> None:
        """Tell how much of a stage is done."""
        if self.on_done is not None:
            self.on_done(stage, done, total)


# -- each crystal for itself ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reduced:
    """A crystal as it is compared.

    Attributes:
        valid: the verdict of `validity`, where that was asked for; else False.
        formula: as `formula_of`; "" where it can't be compared.
        n_atoms: atoms of the primitive cell.
        primitive: the packed cell, as JSON; "" likewise.
        reason: why it can't be compared; "" if it can.
    """

    valid: bool = False
    formula: str = ""
    n_atoms: int = 0
    primitive: str = ""
    reason: str = "no crystal"


def reduce_record(task: Mapping[str, Any]) -> dict[str, Any]:
    """Reduce the cell of a packed crystal, in a worker process; return a record of `Reduced`."""
    record = json.loads(task["sample"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns of each radius and electronegativity it lacks
        try:
            crystal = conversion.from_json(record)
        except CrystallmError as error:
            return asdict(Reduced(reason=f"no crystal: {error}"))
        primitive = primitive_cell(crystal)
    if isinstance(primitive, str):
        return asdict(Reduced(reason=primitive))
    formula = formula_of(crystal.composition.get_el_amt_dict())
    packed = json.dumps(conversion.to_json(primitive))
    return asdict(Reduced(formula=formula, n_atoms=len(primitive), primitive=packed, reason=""))


def primitive_cell(crystal: Structure) -> Structure | str:
    """The primitive Niggli cell, or why there is none to compare."""
    if not crystal.is_ordered:
        return "its sites are shared"
    if len(crystal) > comparison.MAX_ATOMS:
        return f"{len(crystal)} atoms are more than the {comparison.MAX_ATOMS} that are compared"
    if not 0 < comparison.stretch(crystal.lattice) < MAX_STRETCH:
        return "its cell is too long or too flat to be compared"
    # What the matcher would do first, each time; it is told to leave it out.
    return crystal.get_reduced_structure().get_primitive_structure()


REDUCE = f"{__name__}:reduce_record"


def reduce_all(keys: Sequence[str | None], crew: Crew, *, function: str = REDUCE) -> list[Reduced]:
    """Reduce the cells of crystals; what is identical is reduced once.

    Args:
        keys: packed crystals, as JSON; None for what is no crystal.
        crew: worker processes.
        function: full name of `reduce_record`, or of one that does more, such as checking validity.
    """
    distinct = list(dict.fromkeys(key for key in keys if key is not None))
    answers = crew.run(function, [{"sample": key} for key in distinct], "reading")
    found: dict[str | None, Reduced] = {None: Reduced()}
    for key, answer in zip(distinct, answers, strict=True):
        lost = isinstance(answer, Failure)
        found[key] = Reduced(reason=f"not compared: {answer.reason}") if lost else Reduced(**answer)
    return [found[key] for key in keys]


# -- which equal each other ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Equals:
    """For crystals by index: the number of what they equal, or why that could not be found."""

    found: dict[int, int] = field(default_factory=dict)
    lost: dict[int, str] = field(default_factory=dict)


def fold_record(task: Mapping[str, Any]) -> list[int | None]:
    """For each new crystal, the number of the head that it equals, for a worker process.

    Heads are numbered on by new crystals that equal none; None stands for these.
    """
    heads = [unpacked(packed) for packed in task["heads"]]
    answer: list[int | None] = []
    for packed in task["new"]:
        crystal = unpacked(packed)
        number = next((i for i, head in enumerate(heads) if equal(crystal, head)), None)
        if number is None:
            heads.append(crystal)
        answer.append(number)
    return answer


def find_repeats(crystals: Sequence[Reduced], valid: Sequence[bool], crew: Crew) -> Equals:
    """The first equal of each crystal that has one, told apart formula by formula, side by side."""

    def cells(members: Sequence[int]) -> list[str]:
        return [crystals[i].primitive for i in members]

    result = Equals()
    firsts: dict[str, int] = {}  # by primitive cell: what is identical needs no comparison
    waiting: dict[tuple[str, int], list[int]] = {}
    for i in sorted(range(len(crystals)), key=lambda i: not valid[i]):
        crystal = crystals[i]
        if not crystal.reason and firsts.setdefault(crystal.primitive, i) == i:
            waiting.setdefault((crystal.formula, crystal.n_atoms), []).append(i)
    heads = {bucket: [members.pop(0)] for bucket, members in waiting.items()}
    size = dict.fromkeys(waiting, FOLDED)
    total = sum(map(len, waiting.values()))
    while left := sum(map(len, waiting.values())):
        crew.report("telling apart", total - left, total)
        buckets = [bucket for bucket, members in waiting.items() if members]
        chosen = [waiting[bucket][: size[bucket]] for bucket in buckets]
        tasks = [
            {"heads": cells(heads[bucket]), "new": cells(new)}
            for bucket, new in zip(buckets, chosen, strict=True)
        ]
        for bucket, new, answer in zip(
            buckets, chosen, crew.run(f"{__name__}:fold_record", tasks), strict=True
        ):
            if isinstance(answer, Failure) and len(new) > 1:
                size[bucket] = max(1, len(new) // 8)
                continue
            del waiting[bucket][: len(new)]
            if isinstance(answer, Failure):
                result.lost[new[0]] = f"not told from others: {answer.reason}"
                continue
            size[bucket] = min(FOLDED, 2 * size[bucket])
            for i, number in zip(new, answer, strict=True):
                if number is None:
                    heads[bucket].append(i)
                else:
                    result.found[i] = heads[bucket][number]
    crew.report("telling apart", total, total)
    for i, crystal in enumerate(crystals):
        first = firsts.get(crystal.primitive, i)
        if first != i:
            result.found[i] = result.found.get(first, first)
    return result


# -- in a worker process -------------------------------------------------------------------------------------

Comparable = tuple["Structure", float]  # a primitive cell and its stretch


@lru_cache(maxsize=512)
def unpacked(packed: str) -> Comparable:
    """Return a packed primitive cell and its stretch."""
    crystal = conversion.from_json(json.loads(packed))
    return crystal, comparison.stretch(crystal.lattice)


def equal(one: Comparable, other: Comparable) -> bool:
    """Return whether two primitive cells are equal; those of very different shape are not compared."""
    (crystal, stretch), (head, its) = one, other
    if len(crystal) != len(head) or max(stretch, its) > comparison.MAX_STRETCH * min(stretch, its):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bool(_matcher().fit(crystal, head, skip_structure_reduction=True))


@cache
def _matcher() -> StructureMatcher:
    return StructureMatcher(ltol=LTOL, stol=STOL, angle_tol=ANGLE_TOL, primitive_cell=False)
