"""Entries of the benchmark of structure prediction as units of work: samples written or given, then judged.

`here` does a block of entries in this process, `there` does many on the workers of an executor; the rows are
the same. Refuses to know where rows are kept, and what they add up to.
"""

from __future__ import annotations

import itertools
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from crystallm.benchmarks import csp_table
from crystallm.benchmarks.csp_table import Sampled
from crystallm.benchmarks.reference_sets import Known
from crystallm.errors import TextError
from crystallm.execution import batching, mapping
from crystallm.execution.batching import FEWEST, AdaptiveBatchSize
from crystallm.generation.request import Request
from crystallm.pipelines.samples import described, generator_of
from crystallm.structures import conversion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor

    from crystallm.generation.generator import Generator

    Rows = list[dict[str, Any]]


TOGETHER = 100
"""Samples that travel to a worker, or are written there, together."""

WRITTEN_TOGETHER, JUDGED_TOGETHER = 2000, 1000
"""Samples that this process writes without a pause, at least, and judges together, at most."""


@dataclass(frozen=True, slots=True)
class Given:
    """Samples that others wrote.

    Attributes:
        samples: of each entry, by its number; none of some.
    """

    samples: Mapping[int, Sequence[Sampled]]

    def write(self, entries: Sequence[int]) -> Iterator[Sequence[Sampled]]:
        """The samples of some entries."""
        return (self.samples.get(i, ()) for i in entries)

    def describe(self, entries: Sequence[int]) -> dict[str, Any]:
        """The same for a worker."""
        return {"samples": [[astuple(sample) for sample in row] for row in self.write(entries)]}


@dataclass(frozen=True)
class Model:
    """Samples that a model writes.

    Attributes:
        generator: of the requests of those entries that can be asked for.
        places: their numbers among the entries, and which request is theirs.
    """

    generator: Generator
    places: Mapping[int, int]

    def write(self, entries: Sequence[int]) -> Iterator[Sequence[Sampled]]:
        """Write the samples of some entries, as they are drawn."""
        written = self.generator.generate([self.places[i] for i in entries if i in self.places])
        return ([_sampled(crystal) for crystal in next(written)] if i in self.places else [] for i in entries)

    @cached_property
    def _same(self) -> dict[str, Any]:
        return described(self.generator.model, self.generator.settings)

    def describe(self, entries: Sequence[int]) -> dict[str, Any]:
        """What a worker needs to write them."""
        asked = [self.places.get(i) for i in entries]
        places = [place for place in asked if place is not None]
        return self._same | {
            "asked": [place is not None for place in asked],
            "requests": [self.generator.plans[place].request.model_dump() for place in places],
            "first": [self.generator.first[place] for place in places],
        }


def here(
    truths: Sequence[Known],
    blocks: Mapping[int, Sequence[int]],
    writer: Given | Model,
    n: int,
    *,
    n_workers: int,
    smact: bool,
    agreement: bool = True,
) -> Iterator[tuple[int, Rows]]:
    """Write and judge blocks of entries in this process and worker processes beside it.

    Args:
        truths: all entries.
        blocks: numbers of the entries of each block.
        writer: of the samples.
        n: samples of an entry.
        n_workers: processes that judge.
        smact: whether to ask for the composition test.
        agreement: whether to fold equal samples.

    Returns:
        An iterator over (block, its rows), in their order. So many are judged together as take some seconds.
    """
    portion = AdaptiveBatchSize(JUDGED_TOGETHER, max(FEWEST, n_workers * n))
    with mapping.kept(n_workers, end=True):
        for group in batching.grouped(blocks.items(), lambda one: n * len(one[1]), WRITTEN_TOGETHER):
            written = writer.write([i for _, block in group for i in block])
            for together in batching.grouped(group, lambda one: n * len(one[1]), portion.sizes()):
                entries = [i for _, block in together for i in block]
                rows = csp_table.judge(
                    [(i, truths[i]) for i in entries],
                    list(itertools.islice(written, len(entries))),
                    workers=n_workers,
                    composition_test=smact,
                    agreement=agreement,
                )
                for number, block in together:
                    mine = set(block)
                    yield number, [row for row in rows if row["entry"] in mine]
                portion.done(n * len(entries))


def there(
    executor: Executor,
    truths: Sequence[Known],
    blocks: Mapping[int, Sequence[int]],
    writer: Given | Model,
    n: int,
    *,
    smact: bool,
    agreement: bool = True,
    progress: Callable[[int], None],
) -> Iterator[tuple[int, Rows]]:
    """Write and judge blocks of entries on an executor's workers.

    Args:
        executor: where.
        truths: all entries.
        blocks: numbers of the entries of each block.
        writer: of the samples.
        n: samples of an entry.
        smact: as for `here`.
        agreement: as for `here`.
        progress: called with how many entries are done.

    Returns:
        An iterator over (block, its rows), as they are done.

    Raises:
        CrystallmError: while drawing, behind all that could be done: entries were lost.
    """
    size = max(1, TOGETHER // n)
    tasks = [
        {
            "block": number,
            "piece": start,
            "smact": smact,
            "agreement": agreement,
            "entries": [
                (i, truths[i].id, conversion.to_json(truths[i].structure))
                for i in block[start : start + size]
            ],
        }
        | writer.describe(block[start : start + size])
        for number, block in blocks.items()
        for start in range(0, len(block), size)
    ]
    missing = {number: -(-len(block) // size) for number, block in blocks.items()}
    found: dict[int, dict[int, Rows]] = {number: {} for number in blocks}
    done = 0
    for task, rows in mapping.finished(executor, work, tasks):
        number = task["block"]
        found[number][task["piece"]] = rows
        done += len(task["entries"])
        progress(done)
        if len(found[number]) == missing[number]:
            pieces = found.pop(number)
            yield number, [row for piece in sorted(pieces) for row in pieces[piece]]


def work(task: Mapping[str, Any]) -> Rows:
    """The worker's side of `there`."""
    entries = [(i, Known(name, conversion.from_json(packed))) for i, name, packed in task["entries"]]
    if "samples" in task:
        samples = [[Sampled(*sample) for sample in row] for row in task["samples"]]
    else:
        generator = generator_of(task, [Request(**request) for request in task["requests"]])
        written = generator.generate(range(len(task["requests"])))
        samples = [
            [_sampled(crystal) for crystal in next(written)] if asked else [] for asked in task["asked"]
        ]
    with mapping.kept():
        return csp_table.judge(entries, samples, composition_test=task["smact"], agreement=task["agreement"])


def _sampled(crystal: Any) -> Sampled:
    """What is judged of a crystal."""
    try:
        # The paper's text is judged as it was printed; see Crystal.judged.
        text = crystal.ended and crystal.judged if crystal.language.writes_cif else crystal.cif
    except TextError:
        text = None
    return Sampled(text or None, crystal.log_likelihood)
