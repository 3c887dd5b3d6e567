"""Check a whole collection of crystals, in worker processes: a row for each, and a summary."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from typing import Any

from crystallm.errors import CrystallmError
from crystallm.execution.mapping import run_tasks
from crystallm.execution.tasks import Failure, Limits
from crystallm.sources.entry import Entry
from crystallm.validity import checks
from crystallm.validity.verdict import What

BLOCK = 2000
"""Crystals that are checked between two writes."""
SECONDS = 60.0
"""Limit for one crystal."""
CHECKS = ("sensible", "formula", "multiplicity", "space_group", "bonds", "valid", "plausible")
"""Columns of results, as in the paper's table up to `valid`. `bonds`: all have a reasonable length."""
COLUMNS = {
    "id": "string",
    "readable": "bool",
    **dict.fromkeys(CHECKS, "bool"),
    "bond_score": "float64",
    "reasons": "string",
    "note": "string",
    "as_printed": "bool",
    "cell_formula": "string",
    "n_atoms": "int32",
    "volume_per_atom": "float64",
    "a": "float64",
    "b": "float64",
    "c": "float64",
    "alpha": "float64",
    "beta": "float64",
    "gamma": "float64",
    "printed_group": "string",
    "found_group": "string",
}
"""Columns of the table of checked crystals, with their pyarrow types. Lengths in Å, angles in degrees, volume
in Å^3. What could not be read is null; `reasons` says why, and `note` how it was read where that had to be
decided. See `StructureFacts`."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Summary of the checks of a collection.

    Attributes:
        counts: for `readable` and each of CHECKS, how many passed.
        as_printed: number of readable crystals that were checked as printed.
        mean_bond_score: over those that have one; None if none has.
        reasons: the most frequent reasons without numbers and names, and how often each occurs.
    """

    n: int
    counts: dict[str, int]
    as_printed: int
    mean_bond_score: float | None
    reasons: dict[str, int]

    def record(self) -> dict[str, Any]:
        """Return the summary as plain values, with shares from 0 to 1."""
        return asdict(self) | {"shares": {name: count / self.n for name, count in self.counts.items()}}


def survey(entries: Iterable[Entry], *, named: bool = True) -> tuple[int, str]:
    """Return the number of entries and a digest of their content.

    Args:
        named: whether the digest depends on their names.
    """
    digest, n = hashlib.blake2b(digest_size=16), 0
    for n, entry in enumerate(entries, start=1):  # noqa: B007 - the last number is the count
        digest.update(
            f"{entry.id if named else entry.format}\0{entry.text}\0{entry.problem}\0".encode(errors="replace")
        )
    return n, digest.hexdigest()


def blocks(entries: Iterable[Entry], size: int | None = None) -> Iterator[list[Entry]]:
    """Yield entries in the blocks in which they are checked: of BLOCK, or another size."""
    rest = iter(entries)
    return iter(lambda: list(itertools.islice(rest, BLOCK if size is None else size)), [])


def check_entries(
    entries: Sequence[Entry],
    *,
    what: What = "auto",
    workers: int = 1,
    on_done: Callable[[int], None] | None = None,
    executor: Executor | None = None,
) -> list[dict[str, Any]]:
    """Check crystals.

    Args:
        what: of a text is checked; see `validity.check`.

    Returns:
        A row per entry, with COLUMNS.
    """
    distinct = list(dict.fromkeys(entry.text for entry in entries if entry.text is not None))
    done = itertools.count(1)
    records = run_tasks(
        executor,
        check_record,
        [{"text": text, "what": what} for text in distinct],
        workers=max(1, min(workers, len(distinct) // 16 + 1)),
        limits=Limits(SECONDS),
        on_done=None if on_done is None else lambda _: on_done(next(done)),
    )
    rows = dict(zip(distinct, records, strict=True))
    return [_row(entry, None if entry.text is None else rows[entry.text]) for entry in entries]


def check_record(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return validity and facts of one text; runs in a worker process."""
    validity, facts = checks.inspect(task["text"], task["what"])
    return {"validity": asdict(validity), "facts": asdict(facts)}


def _row(entry: Entry, record: dict[str, Any] | Failure | None) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS) | {"id": entry.id, "readable": record is not None}
    if record is None or isinstance(record, Failure):
        reason = f"not read: {entry.problem}" if record is None else f"not judged: {record.reason}"
        return row | dict.fromkeys(CHECKS, False) | {"reasons": reason}
    validity, facts = record["validity"], record["facts"]
    row |= {name: validity[name] for name in CHECKS if name != "bonds"}
    row |= {"bonds": validity["bond_score"] == 1, "bond_score": validity["bond_score"]}
    row |= {"reasons": "; ".join(validity["reasons"])}
    row |= {name: facts[name] for name in COLUMNS if name in facts}
    row["readable"] = facts["n_atoms"] is not None
    row["note"] = "; ".join(note for note in (entry.note, facts["note"]) if note)
    return row | dict(zip(("a", "b", "c", "alpha", "beta", "gamma"), facts["cell"] or (), strict=False))


def summarise(rows: Sequence[Mapping[str, Any]], n_reasons: int = 10) -> Summary:
    """Return the summary of the rows of `check_entries`. Raises CrystallmError: there are none."""
    if not rows:
        raise CrystallmError("no crystal was judged")
    scores = [row["bond_score"] for row in rows if row["bond_score"] is not None]
    kinds = Counter(
        kind for row in rows for kind in {_kind(r) for r in (row["reasons"] or "").split("; ") if r}
    )
    return Summary(
        n=len(rows),
        counts={name: sum(bool(row[name]) for row in rows) for name in ("readable", *CHECKS)},
        as_printed=sum(bool(row["as_printed"] and row["readable"]) for row in rows),
        mean_bond_score=sum(scores) / len(scores) if scores else None,
        reasons=dict(kinds.most_common(n_reasons)),
    )


def _kind(reason: str) -> str:
    """Return a reason without the values of one crystal."""
    if reason.startswith("space group: ") and "is found" in reason:
        none = "none is found" in reason
        return "space group: " + ("none is found" if none else "another one is found than is printed")
    if reason.startswith("bonds: ") and reason.endswith("reasonable length"):
        return "bonds: some have no reasonable length"
    head, colon, _ = reason.partition(": ")
    kinds = ("formula", "multiplicity", "sensible", "volume", "distance", "neighbors")
    return head if colon and head in kinds else reason[:80]
