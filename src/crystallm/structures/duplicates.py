"""Clusters of equal structures, found in worker processes.

Two structures are equal if pymatgen's StructureMatcher (ltol 0.2, stol 0.3, angle_tol 5) fits their primitive
cells, their volumes scaled to each other. Only structures of one reduced formula and number of atoms are
compared, each with the first structure of every earlier cluster. Structures that cannot be compared, or not
within the limits of a worker process, equal only identical ones.

Worker processes import this module with all that a comparison needs. So a missing package ends the run, and
no comparison fails in silence.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError, quiet_libraries
from crystallm.execution.mapping import open_executor, run_tasks
from crystallm.execution.tasks import DEFAULT_LIMITS, Failure, Limits, WorkerStartError
from crystallm.structures import comparison, conversion
from crystallm.structures.comparison import formula_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence
    from concurrent.futures import Executor

    from pymatgen.core import Structure

    OnDone = Callable[[str, int, int], None]

MAX_STRETCH = 1000.0
"""L^3 / V of a reduced cell beyond which a structure is not compared; no compound of the corpus has half."""

BLOCK = 64
"""Structures of one formula that are compared in one task; fewer after one failed."""

READ_BY_ONE = 32
"""Structures for which one more process is started to reduce them."""

MATCHER = comparison.matcher(primitive_cell=False)


@dataclass(frozen=True, slots=True)
class ComparisonRunner:
    """Runs the tasks of comparisons and reports how many are done."""

    executor: Executor | None = None
    workers: int = 1
    limits: Limits = DEFAULT_LIMITS
    on_done: OnDone | None = None

    def run(self, function: Callable[[Any], Any] | str, tasks: Sequence[Any], stage: str = "") -> list[Any]:
        """Apply a function to tasks, in worker processes."""
        done: list[int] = []  # of tasks; to append is atomic

        def count(number: int) -> None:
            done.append(number)
            if stage:
                self.report(stage, len(done), len(tasks))

        workers = max(1, min(self.workers, len(tasks)))
        return run_tasks(self.executor, function, tasks, workers=workers, limits=self.limits, on_done=count)

    def report(self, stage: str, done: int, total: int) -> None:
        """Report how much of a stage is done."""
        if self.on_done is not None:
            self.on_done(stage, done, total)


# -- primitive cells -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReducedStructure:
    """A structure reduced to what is compared.

    Attributes:
        valid: whether the checks of `validity` pass, where the caller's function checks them; else False.
        formula: as `formula_of`; "" if it cannot be compared.
        n_atoms: atoms of the primitive cell.
        primitive: the primitive cell as a JSON text; "" likewise.
        reason: why it cannot be compared; "" if it can.
    """

    valid: bool = False
    formula: str = ""
    n_atoms: int = 0
    primitive: str = ""
    reason: str = "no crystal"


def reduce_record(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a ReducedStructure for `sample`, a JSON text; runs in a worker process."""
    with quiet_libraries():  # pymatgen warns of each radius and electronegativity it lacks
        try:
            structure = conversion.from_json(json.loads(task["sample"]))
        except CrystallmError as error:
            return asdict(ReducedStructure(reason=f"no crystal: {error}"))
        primitive = primitive_cell(structure)
    if isinstance(primitive, str):
        return asdict(ReducedStructure(reason=primitive))
    formula = formula_of(structure.composition.get_el_amt_dict())
    cell = json.dumps(conversion.to_json(primitive))
    return asdict(ReducedStructure(formula=formula, n_atoms=len(primitive), primitive=cell, reason=""))


def primitive_cell(structure: Structure) -> Structure | str:
    """Return the primitive Niggli cell, or why the structure is not compared."""
    if not structure.is_ordered:
        return "its sites are shared"
    if len(structure) > comparison.MAX_ATOMS:
        return f"{len(structure)} atoms are more than the {comparison.MAX_ATOMS} that are compared"
    if not 0 < comparison.stretch(structure.lattice) < MAX_STRETCH:
        return "its cell is too long or too flat to be compared"
    # As the matcher would reduce it in each comparison.
    return structure.get_reduced_structure().get_primitive_structure()


def reduce_all(
    keys: Sequence[str | None],
    runner: ComparisonRunner,
    *,
    function: Callable[[Any], Any] = reduce_record,
) -> list[ReducedStructure]:
    """Reduce the cells of structures, of identical ones once.

    Args:
        keys: structures as JSON texts; None for a sample without a structure.
        function: `reduce_record`, or one that does more, such as checking validity.
    """
    distinct = list(dict.fromkeys(key for key in keys if key is not None))
    values = runner.run(function, [{"sample": key} for key in distinct], "reading")
    reduced: dict[str | None, ReducedStructure] = {None: ReducedStructure()}
    for key, value in zip(distinct, values, strict=True):
        failed = isinstance(value, Failure)
        reduced[key] = (
            ReducedStructure(reason=f"not compared: {value.reason}") if failed else ReducedStructure(**value)
        )
    return [reduced[key] for key in keys]


# -- equal structures ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Matches:
    """For structures by index: the number of the one that each equals, or why it was not compared."""

    matched: dict[int, int] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)


def compare_record(task: Mapping[str, Any]) -> list[int | None]:
    """Return the number of the head that each new structure equals; runs in a worker process.

    A new structure that equals none gets None, and becomes the next head.
    """
    heads = [load_reduced(text) for text in task["heads"]]
    numbers: list[int | None] = []
    for text in task["new"]:
        structure = load_reduced(text)
        pairs = ((head, structure) if task["head_first"] else (structure, head) for head in heads)
        number = next((i for i, pair in enumerate(pairs) if are_equal(*pair)), None)
        if number is None:
            heads.append(structure)
        numbers.append(number)
    return numbers


def find_duplicates(
    structures: Sequence[ReducedStructure],
    runner: ComparisonRunner,
    *,
    groups: Sequence[Hashable] | None = None,
    order: Sequence[int] | None = None,
    head_first: bool = True,
) -> Matches:
    """Match each structure with the first one that it equals, formula by formula, side by side.

    Args:
        structures: reduced.
        groups: of each structure; only those of one group are compared.
        order: indices in the order in which the first of equal structures is chosen.
        head_first: in which order the matcher gets a pair: its answer is not symmetric near its tolerances.
    """

    def cells(members: Sequence[int]) -> list[str]:
        return [structures[i].primitive for i in members]

    matches = Matches()
    group = [None] * len(structures) if groups is None else groups
    firsts: dict[Hashable, int] = {}  # by primitive cell: identical ones need no comparison
    waiting: dict[Hashable, list[int]] = {}
    for i in range(len(structures)) if order is None else order:
        one = structures[i]
        if not one.reason and firsts.setdefault((group[i], one.primitive), i) == i:
            waiting.setdefault((group[i], one.formula, one.n_atoms), []).append(i)
    heads = {bucket: [members.pop(0)] for bucket, members in waiting.items()}
    size = dict.fromkeys(waiting, BLOCK)
    total = sum(map(len, waiting.values()))
    while left := sum(map(len, waiting.values())):
        runner.report("telling apart", total - left, total)
        chosen = {b: members[: size[b]] for b, members in waiting.items() if members}
        tasks = [
            {"heads": cells(heads[bucket]), "new": cells(new), "head_first": head_first}
            for bucket, new in chosen.items()
        ]
        for (bucket, new), numbers in zip(chosen.items(), runner.run(compare_record, tasks), strict=True):
            if isinstance(numbers, Failure) and len(new) > 1:
                size[bucket] = max(1, len(new) // 8)
                continue
            del waiting[bucket][: len(new)]
            if isinstance(numbers, Failure):
                matches.failed[new[0]] = f"not told from others: {numbers.reason}"
                continue
            size[bucket] = min(BLOCK, 2 * size[bucket])
            for i, number in zip(new, numbers, strict=True):
                if number is None:
                    heads[bucket].append(i)
                else:
                    matches.matched[i] = heads[bucket][number]
    runner.report("telling apart", total, total)
    for i, one in enumerate(structures):
        first = firsts.get((group[i], one.primitive), i)
        if first != i:
            matches.matched[i] = matches.matched.get(first, first)
    return matches


def cluster_duplicates(
    requests: Sequence[Sequence[Structure | None]],
    *,
    workers: int | None = None,
    seconds: float = 120.0,
    executor: Executor | None = None,
) -> list[list[int | None]]:
    """Number the clusters of equal structures, those of each request separately.

    Args:
        requests: for each request its structures; None for a sample without a structure.
        workers: maximum number of processes that work at the same time; None for one per core.
        seconds: limit for one task, some comparisons.
        executor: where to compare; None opens processes for this call.

    Returns:
        For each request, for each structure the number of its cluster, counted from 0 in the order of the
        clusters' first structures; None for a sample without a structure.

    Raises:
        CrystallmError: no worker process could be started, or a package is missing there.
    """
    flat = [(i, structure) for i, row in enumerate(requests) for structure in row]
    keys = [None if structure is None else json.dumps(conversion.to_json(structure)) for _, structure in flat]
    if not any(keys):
        return [[None] * len(row) for row in requests]
    groups = [i for i, _ in flat]
    n = os.cpu_count() or 1 if workers is None else workers
    limits = Limits(seconds)
    try:
        with open_executor(executor, n) as (opened, _):
            few = max(1, min(n, len(set(keys)) // READ_BY_ONE))
            reduced = reduce_all(keys, ComparisonRunner(opened, few, limits))
            runner = ComparisonRunner(opened, n, limits)
            matches = find_duplicates(reduced, runner, groups=groups)
    except WorkerStartError as error:
        raise CrystallmError(f"crystals cannot be compared: {error}; pip install pymatgen-core") from error
    numbers: dict[Hashable, int] = {}
    counts = [0] * len(requests)
    clusters: list[list[int | None]] = [[] for _ in requests]
    for i, (group, key) in enumerate(zip(groups, keys, strict=True)):
        if key is None:
            clusters[group].append(None)
            continue
        # Structures that are not compared equal identical ones.
        first = (group, key) if reduced[i].reason else matches.matched.get(i, i)
        if first not in numbers:
            numbers[first] = counts[group]
            counts[group] += 1
        clusters[group].append(numbers[first])
    return clusters


# -- in a worker process -------------------------------------------------------------------------------------

Comparable = tuple["Structure", float]
"""A primitive cell and its stretch."""


@lru_cache(maxsize=512)
def load_reduced(text: str) -> Comparable:
    """Return the primitive cell of a JSON text, and its stretch."""
    structure = conversion.from_json(json.loads(text))
    return structure, comparison.stretch(structure.lattice)


def are_equal(first: Comparable, second: Comparable) -> bool:
    """Return whether two primitive cells are equal; those of very different shape are not compared."""
    stretches = first[1], second[1]
    if len(first[0]) != len(second[0]) or max(stretches) > comparison.MAX_STRETCH * min(stretches):
        return False
    with quiet_libraries():
        return bool(MATCHER.fit(first[0], second[0], skip_structure_reduction=True))
