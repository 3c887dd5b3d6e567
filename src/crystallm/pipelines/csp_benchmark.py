"""The benchmark of crystal structure prediction, resumably: samples generated or given, then checked.

Blocks of entries are done in this process or on the workers of an executor; the rows are the same.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystallm.benchmarks import csp_table
from crystallm.benchmarks.csp_report import CspReport
from crystallm.benchmarks.csp_table import CspSample
from crystallm.benchmarks.reference_sets import (
    ReferenceStructure,
    find_data,
    read_references,
    requests_for,
)
from crystallm.errors import CrystallmError, InputError, TextError
from crystallm.execution.batching import FEWEST, AdaptiveBatchSize, grouped
from crystallm.execution.mapping import AHEAD, map_tasks
from crystallm.execution.place import open_cluster
from crystallm.execution.pool import ProcessPool, worker_pool
from crystallm.execution.resumable import UnitResult, run_units
from crystallm.execution.tasks import Failure
from crystallm.generation.analogues import AnyGenerator, make_generator
from crystallm.generation.generator import Generator
from crystallm.generation.request import Request
from crystallm.pipelines.samples import make_task_generator, model_description
from crystallm.references.leakage import library_for
from crystallm.references.options import ReferenceOptions
from crystallm.storage import files
from crystallm.storage.run_folder import RunFolder
from crystallm.structures import conversion
from crystallm.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from collections.abc import Generator as Results
    from concurrent.futures import Executor

    from crystallm.benchmarks.options import CspOptions
    from crystallm.execution.place import ExecutionOptions
    from crystallm.execution.progress import Progress
    from crystallm.generation.request import SamplingOptions

    Rows = list[dict[str, Any]]

BLOCK_SAMPLES = 100
"""Samples of a block, which is stored as a whole; at least one entry."""

TASK_SAMPLES = 100
"""Samples of a task of an executor."""

MIN_GENERATED, MAX_CHECKED = 2000, 1000
"""Minimum number of samples generated at a time in this process, and maximum number checked together."""


@dataclass(frozen=True, slots=True)
class GivenSamples:
    """Samples of another program.

    Attributes:
        samples: of each entry, by index; entries without samples are missing.
    """

    samples: Mapping[int, Sequence[CspSample]]

    def generate(self, entries: Sequence[int]) -> Iterator[Sequence[CspSample]]:
        """Return the samples of some entries."""
        return (self.samples.get(i, ()) for i in entries)

    def payload(self, entries: Sequence[int]) -> dict[str, Any]:
        """Return the samples of some entries as JSON for a worker."""
        return {"samples": [[astuple(sample) for sample in row] for row in self.generate(entries)]}


@dataclass(frozen=True)
class ModelSamples:
    """Samples of a model, of known crystals, or of both.

    Attributes:
        generator: of the requests of those entries that have one.
    """

    generator: AnyGenerator
    request_indices: Mapping[int, int]

    def generate(self, entries: Sequence[int]) -> Iterator[Sequence[CspSample]]:
        """Generate the samples of some entries lazily."""
        indices = self.request_indices
        crystals = self.generator.generate([indices[i] for i in entries if i in indices])
        return ([_to_sample(crystal) for crystal in next(crystals)] if i in indices else [] for i in entries)

    @cached_property
    def _model(self) -> dict[str, Any]:
        assert isinstance(self.generator, Generator)  # noqa: S101 - others are not packed
        return model_description(self.generator.model, self.generator.settings)

    def payload(self, entries: Sequence[int]) -> dict[str, Any]:
        """Return model and requests of some entries as JSON for a worker; samples where it has no library."""
        if not isinstance(self.generator, Generator):
            return {"samples": [[astuple(sample) for sample in row] for row in self.generate(entries)]}
        indices = [self.request_indices.get(i) for i in entries]
        present = [index for index in indices if index is not None]
        return self._model | {
            "has_request": [index is not None for index in indices],
            "requests": [self.generator.plans[index].request.model_dump() for index in present],
            "first": [self.generator.first[index] for index in present],
        }


def run(
    options: CspOptions,
    sampling: SamplingOptions,
    execution: ExecutionOptions,
    *,
    known: ReferenceOptions | None = None,
    progress: Progress,
) -> CspReport:
    """Run the benchmark, or resume it in the folder of the options.

    Raises:
        InputError: invalid options or data; a folder with another run.
        CrystallmError: an invalid reference structure; SMACT is missing; a folder that cannot be written.
    """
    name, numbers = options.required_data(), options.numbers
    if options.out is not None:
        files.check_place(options.out)
    path, split = find_data(name, options.split, options.data_dir)
    references = read_references(path, split=split, entries=options.limit)
    known = (known or ReferenceOptions.defaults()).resolved(bundled=False)
    on_cluster = execution.cluster is not None and known.crystals_from == "network"
    samples, question = _samples(references, options, sampling, known, on_cluster=on_cluster)
    question |= {
        "command": "benchmark", "version": __version__, "n": list(numbers), "data": Path(path).name,
        "limit": options.limit, "split": options.split, "composition_test": options.smact,
        "agreement": options.choose_by_agreement, "entries": len(references),
    }  # fmt: skip
    n_workers = execution.workers or os.cpu_count() or 1
    with open_cluster(execution.cluster) as executor:
        task = _EntryRun(references, samples, options, executor, n_workers)
        rows = task.rows(question, progress)
        with progress("comparing with polymorphs", None) as advance:
            done = itertools.count(1)
            lines = csp_table.tabulate(
                references,
                rows,
                numbers,
                composition_test=options.smact,
                workers=n_workers,
                on_done=lambda _: advance(next(done)),
                executor=executor,
            )
    source = " and ".join(str(question[name]) for name in ("model", "generated", "known") if name in question)
    result = CspReport(f"{name}, {len(references)} entries, {source}", lines, question)
    if options.out is not None:
        result.write(options.out, csp_table.growth(len(references), rows, max(numbers)))
    return result


# -- samples -------------------------------------------------------------------------------------------------


def _samples(
    references: Sequence[ReferenceStructure],
    options: CspOptions,
    sampling: SamplingOptions,
    known: ReferenceOptions,
    *,
    on_cluster: bool,
) -> tuple[GivenSamples | ModelSamples, dict[str, Any]]:
    """Return the source of samples, and the options that determine them."""
    if options.generated is not None:
        return _given(options.generated, references, max(options.numbers))
    from crystallm.models.load import load_model

    model = None
    if known.crystals_from != "references":
        # The workers of a cluster sample; this machine, which may lack a GPU, only interprets the requests.
        device = "cpu" if on_cluster else sampling.device
        model = load_model(sampling.model, device=device, dtype=sampling.dtype)
    context = None if model is None or model.language.slides else model.config.context
    structures = [reference.structure for reference in references]
    n = max(options.numbers)
    requests = requests_for(structures, n, with_group=options.with_group, context=context)
    indices = {i: k for k, i in enumerate(i for i, request in enumerate(requests) if request is not None)}
    question: dict[str, Any] = {"space_group": options.with_group}
    if model is not None:
        question |= sampling.model_dump(exclude={"device", "batch_size"}) | {"weights": model.fingerprint}
    library = None
    if known.crystals_from != "network":
        entries = ((reference.id, reference.structure) for reference in references)
        library, facts = library_for(entries, known, options.leave_out)
        question |= facts
    asked = [request for request in requests if request is not None]
    return ModelSamples(
        make_generator(model, asked, sampling, library=library, reading=known.reading), indices
    ), question


def _given(
    path: Path, references: Sequence[ReferenceStructure], n: int
) -> tuple[GivenSamples, dict[str, Any]]:
    """Read samples of another program."""
    from crystallm.sources import collection

    texts: dict[str, dict[int, str | None]] = defaultdict(dict)
    for entry in collection.read_cifs(path):
        name, sign, number = Path(entry.id).name.rpartition("__")
        if sign and number.isdecimal():
            texts[name][int(number)] = entry.text
    if not {reference.id for reference in references} & texts.keys():
        raise InputError(
            f"{str(path)!r} holds no CIF named after an entry, such as {references[0].id}__1.cif: name them "
            "ID__N.cif, N counting the samples"
        )
    samples = {
        i: [CspSample(own[number]) for number in sorted(own)[:n]]
        for i, reference in enumerate(references)
        if (own := texts.get(reference.id))
    }
    return GivenSamples(samples), {"generated": path.name, "crystals": sum(map(len, texts.values()))}


def _to_sample(crystal: Any) -> CspSample:
    try:
        # The paper's text is checked as it was printed; see Crystal.checked_text.
        text = crystal.ended and crystal.checked_text if crystal.language.writes_cif else crystal.cif
    except TextError:
        text = None
    return CspSample(text or None, crystal.log_likelihood)


# -- blocks of entries ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _EntryRun:
    """A run over all entries.

    Attributes:
        references: of all entries.
        executor: that generates and checks; None: this process, with worker processes.
    """

    references: Sequence[ReferenceStructure]
    samples: GivenSamples | ModelSamples
    options: CspOptions
    executor: Executor | None
    n_workers: int

    @property
    def n(self) -> int:
        """Samples per entry."""
        return max(self.options.numbers)

    def rows(self, question: dict[str, Any], progress: Progress) -> Rows:
        """Return a row per sample of all entries; blocks of an unfinished run are not done again."""
        size = max(1, BLOCK_SAMPLES // self.n)
        n_entries = len(self.references)
        blocks = [range(start, min(start + size, n_entries)) for start in range(0, n_entries, size)]
        folder = RunFolder(self.options.out, question, csp_table.COLUMNS)
        run_units(
            blocks,
            self._check_here if self.executor is None else self._check_on_executor,
            folder,
            task="sampling and checking entries",
            total=n_entries,
            size=len,
            progress=progress,
        )
        folder.finish()
        return folder.rows()

    def _check_here(
        self, blocks: Iterator[tuple[int, Sequence[int]]], _: Callable[[int], None]
    ) -> Results[UnitResult]:
        """Yield the rows of blocks in order; batches for checks take a few seconds each."""
        batch_size = AdaptiveBatchSize(MAX_CHECKED, max(FEWEST, self.n_workers * self.n))

        def n_samples(block: tuple[int, Sequence[int]]) -> int:
            return self.n * len(block[1])

        with ProcessPool(self.n_workers) as pool:
            for group in grouped(blocks, n_samples, MIN_GENERATED):
                samples = self.samples.generate([i for _, block in group for i in block])
                for batch in grouped(group, n_samples, batch_size.sizes()):
                    entries = [i for _, block in batch for i in block]
                    rows = csp_table.check_samples(
                        [(i, self.references[i]) for i in entries],
                        list(itertools.islice(samples, len(entries))),
                        composition_test=self.options.smact,
                        agreement=self.options.choose_by_agreement,
                        executor=pool,
                    )
                    for number, block in batch:
                        own = set(block)
                        yield UnitResult(number, [row for row in rows if row["entry"] in own])
                    batch_size.done(self.n * len(entries))

    def _check_on_executor(
        self, blocks: Iterator[tuple[int, Sequence[int]]], advance: Callable[[int], None]
    ) -> Results[UnitResult]:
        """Yield the rows of blocks as the workers of the executor complete them."""
        assert self.executor is not None  # noqa: S101 - chosen for it
        contents = dict(blocks)
        size = max(1, TASK_SAMPLES // self.n)
        tasks: list[dict[str, Any]] = [
            {
                "block": number,
                "piece": start,
                "smact": self.options.smact,
                "agreement": self.options.choose_by_agreement,
                "entries": [
                    (i, self.references[i].id, conversion.to_json(self.references[i].structure))
                    for i in block[start : start + size]
                ],
            }
            | self.samples.payload(block[start : start + size])
            for number, block in contents.items()
            for start in range(0, len(block), size)
        ]
        n_pieces = {number: -(-len(block) // size) for number, block in contents.items()}
        pieces: dict[int, dict[int, Rows]] = {number: {} for number in contents}
        n_done = 0
        failures: list[Failure] = []
        for task, rows in map_tasks(self.executor, check_task, tasks, ahead=AHEAD, limits=None):
            if isinstance(rows, Failure):
                failures.append(rows)
                continue
            number = task["block"]
            pieces[number][task["piece"]] = rows
            n_done += len(task["entries"])
            advance(n_done)
            if len(pieces[number]) == n_pieces[number]:
                complete = pieces.pop(number)
                yield UnitResult(number, [row for piece in sorted(complete) for row in complete[piece]])
        if failures:
            raise CrystallmError(
                f"{len(failures)} of {len(tasks)} tasks failed on the cluster ({failures[0].reason}); with "
                "--out, the same command does what is missing"
            )


def check_task(task: Mapping[str, Any]) -> Rows:
    """Generate and check the samples of a task, in a worker."""
    entries = [
        (i, ReferenceStructure(name, conversion.from_json(packed))) for i, name, packed in task["entries"]
    ]
    if "samples" in task:
        samples = [[CspSample(*sample) for sample in row] for row in task["samples"]]
    else:
        generator = make_task_generator(task, [Request(**request) for request in task["requests"]])
        crystals = generator.generate(range(len(task["requests"])))
        samples = [
            [_to_sample(crystal) for crystal in next(crystals)] if has_request else []
            for has_request in task["has_request"]
        ]
    return csp_table.check_samples(
        entries,
        samples,
        composition_test=task["smact"],
        agreement=task["agreement"],
        executor=worker_pool(),
    )
