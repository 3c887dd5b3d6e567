"""Known structures by formula, and which of them equal generated ones.

What equal means is defined in `duplicates`.
"""

from __future__ import annotations

import itertools
import json
import logging
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError, quiet_libraries
from crystallm.execution.mapping import map_tasks, open_executor
from crystallm.execution.tasks import Failure, Limits
from crystallm.sources import parsing
from crystallm.structures import comparison, conversion
from crystallm.structures.comparison import formula_of
from crystallm.structures.duplicates import (
    ComparisonRunner,
    Matches,
    ReducedStructure,
    are_equal,
    load_reduced,
    primitive_cell,
    reduce_all,
)

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor

    from pymatgen.core import Structure

    from crystallm.structures.duplicates import Comparable

    ComparedSample = Structure | str | None

GENERATED, KNOWN = 8, 32
"""Generated and known structures of one task."""
READ = 100
"""Known structures that are read in one task."""
NAMED = 3
"""Maximum number of unreadable structures that are named."""
_log = logging.getLogger(__name__)


def known_equals(
    samples: Sequence[ComparedSample],
    known: Iterable[tuple[str, str]],
    *,
    workers: int = 1,
    seconds: float = 60.0,
    executor: Executor | None = None,
) -> list[str | None]:
    """Return for each sample the id of the first known structure that it equals, or None.

    A sample that could not be compared equals none.
    """
    with open_executor(executor, workers) as (opened, _):
        runner = ComparisonRunner(opened, workers, Limits(seconds))
        keys = [None if sample is None else json.dumps(conversion.to_json(sample)) for sample in samples]
        reduced = reduce_all(keys, runner)
        rows = index(known, {one.formula for one in reduced if one.formula}, runner)
        matches, _ = find_matches(reduced, rows, runner)
    return [
        rows.rows[one.formula][matches.matched[i]][0] if i in matches.matched else None
        for i, one in enumerate(reduced)
    ]


# -- known structures by formula -----------------------------------------------------------------------------


@dataclass(slots=True)
class KnownSet:
    """Known structures by formula: those of the requested formulas alone, their CIFs compressed."""

    n_rows: int = 0
    """Known structures that were read."""
    n_unreadable: int = 0
    """Those that cannot be read."""
    rows: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)
    """For each formula, ids and compressed CIFs in their order."""

    def text(self, formula: str, number: int) -> str:
        """Return the CIF of a row."""
        return zlib.decompress(self.rows[formula][number][1]).decode()


def index(known: Iterable[tuple[str, str]], formulas: Container[str], runner: ComparisonRunner) -> KnownSet:
    """File known structures by formula, in one pass; others than the requested ones are not kept.

    The formula is that of the atoms, whatever a CIF prints. A warning in the log names what cannot be read.

    Args:
        known: ids and CIFs.
        formulas: those to keep, as `formula_of` returns them.
        runner: of the worker processes that read them.
    """
    known_set = KnownSet()
    kept: list[tuple[int, str, str, bytes]] = []
    unreadable: list[tuple[int, str]] = []
    rows = enumerate(known)
    tasks = ({"rows": block} for block in iter(lambda: list(itertools.islice(rows, READ)), []))
    with open_executor(runner.executor, runner.workers) as (executor, ahead):
        for task, value in map_tasks(
            executor,
            formulas_record,
            tasks,
            ahead=ahead,
            limits=runner.limits,
            split=lambda task: [{"rows": [row]} for row in task["rows"]],
        ):
            found = [("", value.reason)] * len(task["rows"]) if isinstance(value, Failure) else value
            for (number, (name, text)), (formula, reason) in zip(task["rows"], found, strict=True):
                known_set.n_rows += 1
                if not formula:
                    unreadable.append((number, f"{name} ({reason})"))
                elif formula in formulas:
                    # Level 1: a quarter of the size for 20 microseconds.
                    kept.append((number, formula, name, zlib.compress(text.encode(), 1)))
            runner.report("known", known_set.n_rows, 0)
    for _, formula, name, packed in sorted(kept):
        known_set.rows.setdefault(formula, []).append((name, packed))
    known_set.n_unreadable = len(unreadable)
    if unreadable:
        names = [name for _, name in sorted(unreadable)[:NAMED]]
        more = f" and {len(unreadable) - NAMED} more" if len(unreadable) > NAMED else ""
        _log.warning("%d known crystals cannot be read: %s%s", len(unreadable), ", ".join(names), more)
    return known_set


def formulas_record(task: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the reduced formula of each of `rows`, or "" and the reason; runs in a worker process."""
    found = []
    for _, (_, text) in task["rows"]:
        try:
            found.append((formula_in(text), ""))
        except CrystallmError as error:
            found.append(("", str(error)))
    return found


def formula_in(text: str) -> str:
    """Return the reduced formula of the atoms of a CIF.

    Raises:
        CrystallmError: it cannot be read.
    """
    return formula_of(parsing.structure(text).composition.get_el_amt_dict())


# -- generated structures that equal known ones --------------------------------------------------------------


def find_matches(
    structures: Sequence[ReducedStructure], known: KnownSet, runner: ComparisonRunner
) -> tuple[Matches, int]:
    """Match each structure with the first known one of its formula that it equals.

    Returns:
        The matches, by number of the known structure of that formula; how many known ones cannot be read.
    """
    firsts: dict[str, int] = {}
    buckets: dict[str, list[int]] = {}
    for i, one in enumerate(structures):
        if one.formula in known.rows and firsts.setdefault(one.primitive, i) == i:
            buckets.setdefault(one.formula, []).append(i)
    tasks = list(_ranges(buckets, known))
    matches = Matches()
    unreadable: set[tuple[str, int]] = set()
    done = 0
    with open_executor(runner.executor, runner.workers, len(tasks)) as (executor, ahead):
        for task, value in map_tasks(
            executor,
            match_record,
            (_with_texts(task, structures, known) for task in tasks),
            ahead=ahead,
            limits=runner.limits,
            split=_one_by_one,  # so that a pathological one costs only itself
        ):
            formula, members, start = task["formula"], task["members"], task["start"]
            if isinstance(value, Failure):
                matches.failed |= dict.fromkeys(members, f"not compared with all: {value.reason}")
            else:
                unreadable.update((formula, start + number) for number in value["unreadable"])
                for i, number in zip(members, value["match"], strict=True):
                    if number is not None:
                        first = matches.matched.get(i, start + number)
                        matches.matched[i] = min(first, start + number)
            done += 1
            runner.report("comparing", min(done, len(tasks)), len(tasks))
    for i in matches.matched:  # one equal is enough
        matches.failed.pop(i, None)
    for i, one in enumerate(structures):
        first = firsts.get(one.primitive, i)
        if first in matches.matched:
            matches.matched[i] = matches.matched[first]
        elif first in matches.failed:
            matches.failed[i] = matches.failed[first]
    return matches, len(unreadable)


def _ranges(buckets: Mapping[str, Sequence[int]], known: KnownSet) -> Iterator[dict[str, Any]]:
    """Yield the tasks of `match_record` without their texts."""
    for formula, members in buckets.items():
        n_rows = len(known.rows[formula])
        # The tasks of a block of known structures are neighbours, so that a worker reads each of them once.
        for start in range(0, n_rows, KNOWN):
            end = min(start + KNOWN, n_rows)
            for at in range(0, len(members), GENERATED):
                some = list(members[at : at + GENERATED])
                yield {"formula": formula, "members": some, "start": start, "end": end}


def _with_texts(
    task: dict[str, Any], structures: Sequence[ReducedStructure], known: KnownSet
) -> dict[str, Any]:
    """Add the texts of a task, as it is drawn: they are decompressed one task at a time."""
    return task | {
        "generated": [structures[i].primitive for i in task["members"]],
        "known": [known.text(task["formula"], number) for number in range(task["start"], task["end"])],
    }


def _one_by_one(task: dict[str, Any]) -> list[dict[str, Any]]:
    pairs = zip(task["members"], task["generated"], strict=True)
    return [task | {"members": [i], "generated": [text]} for i, text in pairs]


def match_record(task: Mapping[str, Any]) -> dict[str, Any]:
    """Match `generated` structures with `known` ones; runs in a worker process.

    Returns:
        `match`: for each generated structure the number of the first known one that it equals, or None;
        `unreadable`: numbers of the known ones that cannot be read or compared.
    """
    generated = [load_reduced(text) for text in task["generated"]]
    match: list[int | None] = [None] * len(generated)
    unreadable = []
    for number, text in enumerate(task["known"]):
        known = _known(text)
        if known is None:
            unreadable.append(number)
            continue
        for i, structure in enumerate(generated):
            if match[i] is None and are_equal(structure, known):
                match[i] = number
    return {"match": match, "unreadable": unreadable}


@lru_cache(maxsize=4 * KNOWN)
def _known(text: str) -> Comparable | None:
    """Return the primitive cell of a CIF and its stretch; None if it cannot be read or compared."""
    with quiet_libraries():
        try:
            primitive = primitive_cell(conversion.from_json({"text": text}))
        except (CrystallmError, ValueError):
            return None
    return None if isinstance(primitive, str) else (primitive, comparison.stretch(primitive.lattice))
