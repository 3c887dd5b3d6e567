"""Which generated crystals equal each other, and which equal known ones.

Two crystals are equal if `StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5)` fits their primitive cells,
their volumes scaled to each other; crystals of one reduced formula alone are compared (see `known_set`). All
that is compared is compared in worker processes with limits; this module is imported there with all that it
takes, so that a package that is missing ends the work and loses no comparison in silence.

Refuses to know what follows from it: `novelty` does.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from pymatgen.core.structure_matcher import StructureMatcher

from crystallm import matching
from crystallm.benchmarks.known_set import KnownSet, formula_of, index
from crystallm.errors import CrystallmError
from crystallm.execution import mapping
from crystallm.execution import tasks as execution_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from concurrent.futures import Executor

    from pymatgen.core import Structure

    Sample = Structure | str | None
    OnDone = Callable[[str, int, int], None]

LTOL, STOL, ANGLE_TOL = 0.2, 0.3, 5.0
"""Shares of a length and of (V / n_atoms)^(1/3), degrees."""
MAX_STRETCH = 1000.0
"""L^3 / V of a reduced cell beyond which a crystal is not compared; see `matching.stretch`."""
CRYSTALS, KNOWN = 8, 32
"""Generated and known crystals of one task."""
FOLDED = 64
"""Crystals of one formula that are told apart in one task; fewer after one was lost."""


def known_equals(
    crystals: Sequence[Sample],
    known: Iterable[tuple[str, str]],
    *,
    workers: int = 1,
    seconds: float = 60.0,
    memory_gb: float = 4.0,
    executor: Executor | None = None,
) -> list[str | None]:
    """For each crystal the id of the first known one that it equals, or None.

    What could not be compared equals none.
    """
    limits = {"workers": workers, "seconds": seconds, "memory_gb": memory_gb, "executor": executor}
    crew = Crew(limits, None)
    keys = [None if sample is None else json.dumps(matching.pack(sample)) for sample in crystals]
    found = reduce_all(keys, crew, judge=False)
    rows = index(known, {crystal.formula for crystal in found if crystal.formula})
    matches, _ = find_matches(found, rows, crew)
    return [
        rows.rows[crystal.formula][matches.found[i]][0] if i in matches.found else None
        for i, crystal in enumerate(found)
    ]


@dataclass(frozen=True, slots=True)
class Crew:
    """Worker processes with their limits, and who hears of what is done."""

    limits: Mapping[str, Any]
    on_done: OnDone | None

    def run(self, function: str, tasks: Sequence[Any], stage: str = "") -> list[Any]:
        """Apply a function of this module to tasks."""
        done: list[int] = []  # of tasks; to append is atomic

        def count(number: int) -> None:
            done.append(number)
            if stage:
                self.report(stage, len(done), len(tasks))

        return mapping.run(f"{__name__}:{function}", tasks, on_done=count, **self.limits)

    def report(self, stage: str, done: int, total: int) -> None:
        """Tell how much of a stage is done."""
        if self.on_done is not None:
            self.on_done(stage, done, total)


# -- each crystal for itself ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reduced:
    """A crystal as it is compared.

    Attributes:
        valid: the verdict of `validity`, False where it was not asked.
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
    """Judge a packed crystal and reduce its cell, for a worker process; a record of `Reduced`."""
    from crystallm import validity

    record = json.loads(task["sample"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns of each radius and electronegativity it lacks
        try:
            crystal = matching.unpack(record)
        except CrystallmError as error:
            return asdict(Reduced(reason=f"no crystal: {error}"))
        valid = (
            task["judge"] and validity.check(record.get("text") or crystal.to(fmt="cif"), what="auto").valid
        )
        primitive = _primitive(crystal)
    if isinstance(primitive, str):
        return asdict(Reduced(valid=valid, reason=primitive))
    formula = formula_of(crystal.composition.get_el_amt_dict())
    return asdict(Reduced(valid, formula, len(primitive), json.dumps(matching.pack(primitive)), reason=""))


def _primitive(crystal: Structure) -> Structure | str:
    """The primitive Niggli cell, or why there is none to compare."""
    if not crystal.is_ordered:
        return "its sites are shared"
    if len(crystal) > matching.MAX_ATOMS:
        return f"{len(crystal)} atoms are more than the {matching.MAX_ATOMS} that are compared"
    if not 0 < matching.stretch(crystal.lattice) < MAX_STRETCH:
        return "its cell is too long or too flat to be compared"
    # What the matcher would do first, each time; it is told to leave it out.
    return crystal.get_reduced_structure().get_primitive_structure()


def reduce_all(keys: Sequence[str | None], crew: Crew, *, judge: bool) -> list[Reduced]:
    """Crystals as they are compared; what is identical is reduced once."""
    distinct = list(dict.fromkeys(key for key in keys if key is not None))
    answers = crew.run("reduce_record", [{"sample": key, "judge": judge} for key in distinct], "reading")
    found: dict[str | None, Reduced] = {None: Reduced()}
    for key, answer in zip(distinct, answers, strict=True):
        lost = isinstance(answer, execution_tasks.Lost)
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
    heads = [_unpacked(packed) for packed in task["heads"]]
    answer: list[int | None] = []
    for packed in task["new"]:
        crystal = _unpacked(packed)
        number = next((i for i, head in enumerate(heads) if _equal(crystal, head)), None)
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
        for bucket, new, answer in zip(buckets, chosen, crew.run("fold_record", tasks), strict=True):
            if isinstance(answer, execution_tasks.Lost) and len(new) > 1:
                size[bucket] = max(1, len(new) // 8)
                continue
            del waiting[bucket][: len(new)]
            if isinstance(answer, execution_tasks.Lost):
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


# -- which are known -----------------------------------------------------------------------------------------


def match_record(task: Mapping[str, Any]) -> dict[str, Any]:
    """Which known crystals equal the generated ones, for a worker process.

    Returns:
        `match`: for each generated one the number of the first that does, or None; `unreadable`: numbers of
        known ones that are no crystal.
    """
    crystals = [_unpacked(packed) for packed in task["crystals"]]
    match: list[int | None] = [None] * len(crystals)
    unreadable = []
    for number, text in enumerate(task["known"]):
        known = _known(text)
        if known is None:
            unreadable.append(number)
            continue
        for i, crystal in enumerate(crystals):
            if match[i] is None and _equal(crystal, known):
                match[i] = number
    return {"match": match, "unreadable": unreadable}


_Part = tuple[str, tuple[int, ...], range]
"""Of the comparisons: a formula, generated crystals by index, known ones by number."""


@dataclass(frozen=True, slots=True)
class _Tasks(Sequence[dict[str, Any]]):
    """Tasks of `match_record`, each made when it is asked for: texts are unpacked one task at a time."""

    crystals: Sequence[Reduced]
    known: KnownSet
    parts: Sequence[_Part]

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: Any) -> Any:
        formula, members, numbers = self.parts[number]
        return {
            "crystals": [self.crystals[i].primitive for i in members],
            "known": [self.known.text(formula, k) for k in numbers],
        }


def find_matches(crystals: Sequence[Reduced], known: KnownSet, crew: Crew) -> tuple[Equals, int]:
    """The number of the first known crystal of its formula that each equals, and how many can't be read."""
    firsts: dict[str, int] = {}
    buckets: dict[str, list[int]] = {}
    for i, crystal in enumerate(crystals):
        if crystal.formula in known.rows and firsts.setdefault(crystal.primitive, i) == i:
            buckets.setdefault(crystal.formula, []).append(i)
    parts: list[_Part] = []
    for formula, members in buckets.items():
        n_rows = len(known.rows[formula])
        # The tasks of a block of known crystals stand together, so that a worker reads each of them once.
        for start in range(0, n_rows, KNOWN):
            numbers = range(start, min(start + KNOWN, n_rows))
            blocks = range(0, len(members), CRYSTALS)
            parts += [(formula, tuple(members[at : at + CRYSTALS]), numbers) for at in blocks]
    result = Equals()
    unreadable: set[tuple[str, int]] = set()
    # What was lost is asked again, a crystal at a time: a freak among them costs itself alone.
    for last in (False, True):
        answers = crew.run("match_record", _Tasks(crystals, known, parts), "comparing")
        again: list[_Part] = []
        for (formula, asked, numbers), answer in zip(parts, answers, strict=True):
            if not isinstance(answer, execution_tasks.Lost):
                unreadable.update((formula, numbers[k]) for k in answer["unreadable"])
                for i, number in zip(asked, answer["match"], strict=True):
                    if number is not None:
                        result.found[i] = min(result.found.get(i, numbers[number]), numbers[number])
            elif last or len(asked) == 1:
                result.lost |= dict.fromkeys(asked, f"not compared with all: {answer.reason}")
            else:
                again += [(formula, (i,), numbers) for i in asked]
        parts = again
        if not parts:
            break
    for i in result.found:  # one equal is enough
        result.lost.pop(i, None)
    for i, crystal in enumerate(crystals):
        first = firsts.get(crystal.primitive, i)
        if first in result.found:
            result.found[i] = result.found[first]
        elif first in result.lost:
            result.lost[i] = result.lost[first]
    return result, len(unreadable)


# -- in a worker process -------------------------------------------------------------------------------------

_Comparable = tuple["Structure", float]  # a primitive cell and its stretch


@lru_cache(maxsize=512)
def _unpacked(packed: str) -> _Comparable:
    crystal = matching.unpack(json.loads(packed))
    return crystal, matching.stretch(crystal.lattice)


@lru_cache(maxsize=4 * KNOWN)
def _known(text: str) -> _Comparable | None:
    """A known crystal as it is compared; None for one that can't be read or compared."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            crystal = matching.unpack({"text": text})
            primitive = _primitive(crystal)
        except (CrystallmError, ValueError):
            return None
    return None if isinstance(primitive, str) else (primitive, matching.stretch(primitive.lattice))


def _equal(one: _Comparable, other: _Comparable) -> bool:
    (crystal, stretch), (head, its) = one, other
    if len(crystal) != len(head) or max(stretch, its) > matching.MAX_STRETCH * min(stretch, its):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bool(_matcher().fit(crystal, head, skip_structure_reduction=True))


@cache
def _matcher() -> StructureMatcher:
    return StructureMatcher(ltol=LTOL, stol=STOL, angle_tol=ANGLE_TOL, primitive_cell=False)
