"""Which generated crystals equal each other, and which equal known ones.

Two crystals are equal if `StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5)` fits their primitive cells,
their volumes scaled to each other; crystals of one reduced formula alone are compared (see `known_set`). All
that is compared is compared in worker processes with limits; this module is imported there with all that it
takes, so that a package that is missing ends the work and loses no comparison in silence.

Refuses to know what follows from it: `novelty` does.
"""

from __future__ import annotations

import json
import re
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError
from crystallm.execution.tasks import Failure, Limits
from crystallm.structures import comparison, conversion
from crystallm.structures.comparison import formula_of
from crystallm.structures.duplicates import Crew, Equals, Reduced, equal, primitive_cell, reduce_all, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping
    from concurrent.futures import Executor

    from pymatgen.core import Structure

    from crystallm.structures.duplicates import Comparable

    ComparedSample = Structure | str | None


CRYSTALS, KNOWN = 8, 32
"""Generated and known crystals of one task."""


def known_equals(
    crystals: Sequence[ComparedSample],
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
    crew = Crew(executor, workers, Limits(seconds, memory_gb))
    keys = [None if sample is None else json.dumps(conversion.to_json(sample)) for sample in crystals]
    found = reduce_all(keys, crew)
    rows = index(known, {crystal.formula for crystal in found if crystal.formula})
    matches, _ = find_matches(found, rows, crew)
    return [
        rows.rows[crystal.formula][matches.found[i]][0] if i in matches.found else None
        for i, crystal in enumerate(found)
    ]


# -- which are known -----------------------------------------------------------------------------------------


def match_record(task: Mapping[str, Any]) -> dict[str, Any]:
    """Which known crystals equal the generated ones, for a worker process.

    Returns:
        `match`: for each generated one the number of the first that does, or None; `unreadable`: numbers of
        known ones that are no crystal.
    """
    crystals = [unpacked(packed) for packed in task["crystals"]]
    match: list[int | None] = [None] * len(crystals)
    unreadable = []
    for number, text in enumerate(task["known"]):
        known = _known(text)
        if known is None:
            unreadable.append(number)
            continue
        for i, crystal in enumerate(crystals):
            if match[i] is None and equal(crystal, known):
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
        answers = crew.run(f"{__name__}:match_record", _Tasks(crystals, known, parts), "comparing")
        again: list[_Part] = []
        for (formula, asked, numbers), answer in zip(parts, answers, strict=True):
            if not isinstance(answer, Failure):
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


@lru_cache(maxsize=4 * KNOWN)
def _known(text: str) -> Comparable | None:
    """A known crystal as it is compared; None for one that can't be read or compared."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            crystal = conversion.from_json({"text": text})
            primitive = primitive_cell(crystal)
        except (CrystallmError, ValueError):
            return None
    return None if isinstance(primitive, str) else (primitive, comparison.stretch(primitive.lattice))


_SUM = re.compile(
    r"""^_chemical_formula_sum[ \t]+(?:'([^'\n]*)'|"([^"\n]*)"|([^\s'"][^\n]*))""", re.MULTILINE
)

_TERM = re.compile(r"([A-Z][a-z]?)(\d*\.?\d*)")


@dataclass(slots=True)
class KnownSet:
    """Known crystals by formula: those alone whose formula is wanted, their texts packed."""

    n_rows: int = 0
    """Known crystals that were streamed."""
    n_unreadable: int = 0
    """Those whose formula could not be found."""
    rows: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)
    """For each formula, ids and packed texts in their order."""

    def text(self, formula: str, number: int) -> str:
        """The CIF of a row."""
        return zlib.decompress(self.rows[formula][number][1]).decode()


def index(
    known: Iterable[tuple[str, str]], wanted: Container[str], *, on_row: Callable[[int], None] | None = None
) -> KnownSet:
    """File known crystals under their formulas, in one pass; what is not wanted is forgotten at once.

    Args:
        known: ids and CIFs.
        wanted: formulas as `formula_of` and `formula_in` give them.
        on_row: called with the number of rows so far, every thousand.
    """
    found = KnownSet()
    for identifier, text in known:
        found.n_rows += 1
        formula = formula_in(text)
        if formula is None:
            found.n_unreadable += 1
        elif formula in wanted:
            # Level 1: a quarter of the size for 20 microseconds.
            found.rows.setdefault(formula, []).append((identifier, zlib.compress(text.encode(), 1)))
        if on_row is not None and not found.n_rows % 1000:
            on_row(found.n_rows)
    return found


def formula_in(text: str) -> str | None:
    """The reduced formula of a CIF by its printed sum, else of its structure; None if it has none."""
    match = _SUM.search(text)
    if match is not None:
        printed = next(group for group in match.groups() if group is not None)
        counts: dict[str, float] = {}
        for symbol, count in _TERM.findall(printed):
            if count != ".":
                counts[symbol] = counts.get(symbol, 0) + float(count or 1)
        rest = _TERM.sub("", printed)
        if counts and not rest.strip(" \t\r,"):
            return formula_of(counts)
    from crystallm.cif import structure_reader

    try:
        structure = structure_reader.read_structure(text)
    except CrystallmError:
        return None
    return formula_of(structure.composition.get_el_amt_dict())
