"""Generate crystals for all requests of a run: sample, check, rank and store them. Resumes with a folder."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from crystallm.crystallography import formula as formulas
from crystallm.crystals import table
from crystallm.crystals.selection import SelectionOptions
from crystallm.energy.registry import require
from crystallm.errors import CrystallmError, InputError
from crystallm.execution.devices import device_names, use_threads
from crystallm.execution.place import ExecutionOptions, open_place
from crystallm.execution.progress import Progress, no_progress
from crystallm.execution.resumable import UnitResult, run_units
from crystallm.generation import analogues, template
from crystallm.generation.analogues import library_of, make_generator, resolve_source
from crystallm.generation.choices import Choice, spread
from crystallm.generation.interpretation import interpret
from crystallm.generation.request import Request, SamplingOptions, elements_of, with_default_z
from crystallm.language import get_language
from crystallm.models import load
from crystallm.models.model import Model
from crystallm.pipelines import blocks, request_files, samples
from crystallm.pipelines.options import GenerateOptions
from crystallm.references.options import ReferenceOptions
from crystallm.storage import files
from crystallm.storage.run_folder import RunFolder
from crystallm.thermodynamics.hull import Hull, MissingElements

LOG = logging.getLogger(__name__)
Requests = Callable[[Callable[[Request], object]], Iterator[Request]]
"""Reads the requests of a run and calls a function, which may raise InputError, on each."""


class GenerateResult(NamedTuple):
    """What a run generated.

    Attributes:
        rows: returns the rows of all crystals, each time it is called.
        counts: `requests`, `crystals`, `valid`, `plausible`, `distinct` and `kept`.
        note: returns how a single request was interpreted; "" for several.
    """

    rows: Callable[[], Iterable[dict[str, Any]]]
    counts: dict[str, int]
    note: Callable[[], str]
    large: bool


def run(
    request: Request,
    sampling: SamplingOptions,
    selection: SelectionOptions,
    execution: ExecutionOptions,
    options: GenerateOptions,
    *,
    known: ReferenceOptions | None = None,
    progress: Progress = no_progress,
) -> GenerateResult:
    """Generate the crystals of a request, or of a file of requests.

    Everything that can be rejected is rejected before the first crystal is sampled.

    Raises:
        InputError: options that are out of range or exclude each other, or an impossible request.
        CrystallmError: a file cannot be read or written, or workers failed.
    """
    place = _place(sampling, execution, options)
    sampling = sampling.model_copy(update={"device": place.devices[0]})
    requests, single = _requests(request, sampling, selection, options)
    if options.out is not None:
        files.check_place(options.out)
    known = resolve_source(known, sampling.model, usable=single is None or single.formula is not None)
    model = _open_model(sampling, place, known, options.threads)
    survey = _survey(requests, model, sampling, selection, known=known, progress=progress)
    run = _Run(requests, single, sampling, selection, options, place, model, survey, known)
    return run.generate(progress)


class _Place(NamedTuple):
    """Where crystals are sampled: on a cluster, in worker processes of this machine, or in this process."""

    cluster: str | None
    workers: int
    devices: tuple[str, ...]

    @property
    def here(self) -> bool:
        """Whether it is this process."""
        return self.cluster is None and self.workers == 1


def _place(sampling: SamplingOptions, execution: ExecutionOptions, options: GenerateOptions) -> _Place:
    devices = device_names(sampling.device)
    if execution.cluster is not None and (execution.workers is not None or len(devices) > 1):
        raise InputError("--cluster and --workers, or several devices: give one or the other")
    workers = len(devices) if execution.workers is None else execution.workers
    if workers < len(devices):
        raise InputError(f"workers = {workers} for {len(devices)} devices: give at least one for each")
    if options.threads is not None and (execution.cluster is not None or workers > 1):
        raise InputError(
            f"threads = {options.threads} are those of this process, workers have one: leave it out"
        )
    return _Place(execution.cluster, workers, devices)


def _requests(
    request: Request, sampling: SamplingOptions, selection: SelectionOptions, options: GenerateOptions
) -> tuple[Requests, Request | None]:
    """Return what reads the requests, and the request itself if there is no file."""
    if selection.energy is not None:
        require(selection.energy)
    formula = request.formula
    if formula is not None and Path(formula).suffix and Path(formula).is_file():
        raise InputError(f"{formula!r} is a file, not a formula: give it as --requests")
    elements = () if formula is None else tuple(formulas.parse(formula))
    if options.requests is None:
        request = _with_prompt(request, sampling, options)
        request = with_default_z(request)
        interpret(request, fitting=sampling.constraints == "full")
        elements = elements or elements_of(request)
    if selection.hull is not None:
        Hull(Path(selection.hull)).require(elements)
    if options.requests is None:
        return partial(_check_single, request), request
    given = sorted(request.model_fields_set - {"n"} | {"prompt_file", "template"} & options.model_fields_set)
    if given:
        raise InputError(f"--requests and {', '.join(given)}: give one or the other")
    if options.out is None:
        raise InputError("--requests needs --out: name a folder for the results")
    path, n = request_files.place(options.requests), request.n
    return (lambda check: request_files.checked(path, n=n, check=check)), None


def _check_single(request: Request, check: Callable[[Request], object]) -> Iterator[Request]:
    check(request)
    yield request


def _with_prompt(request: Request, sampling: SamplingOptions, options: GenerateOptions) -> Request:
    """Return the request with the prompt that a prompt file, or a template with the formula, stands for."""
    given = [
        name for name in ("z", "space_group", "elements", "prompt") if getattr(request, name) is not None
    ]
    if options.prompt_file is not None:
        given += ["formula"] * (request.formula is not None) + ["template"] * (options.template is not None)
        if given:
            raise InputError(f"--prompt-file and {', '.join(given)}: give one or the other")
        return request.model_copy(update={"prompt": _read_text(options.prompt_file)})
    if options.template is not None:
        if request.formula is None or given:
            more = f", not {', '.join(given)}" if given else ""
            raise InputError(
                f"--template takes a formula{more}: crystallm generate YMn6Ge6 --template ZrMn6Sn6.cif"
            )
        language = get_language(load.language_of(sampling.model))
        ids = template.template_prompt(template.read(str(options.template)), request.formula, language)
        return request.model_copy(update={"formula": None, "prompt": language.text(ids)})
    if request.prompt is not None:
        return request.model_copy(update={"prompt": request.prompt.replace("\\n", "\n")})
    return request


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CrystallmError(f"{str(path)!r} cannot be read: {error}") from error


def _open_model(
    sampling: SamplingOptions, place: _Place, known: ReferenceOptions, threads: int | None
) -> Model | None:
    """Open the model, unless only known crystals are used."""
    if known.crystals_from == "references":
        return None
    # Workers may have a GPU where this machine has none: here the model only checks requests.
    device = sampling.device if place.here else "cpu"
    set_threads = partial(use_threads, threads)
    return load.open_model(sampling.model, device=device, dtype=sampling.dtype, before=set_threads)


def _survey(
    requests: Requests,
    model: Model | None,
    sampling: SamplingOptions,
    selection: SelectionOptions,
    *,
    known: ReferenceOptions,
    progress: Progress,
) -> request_files.Survey:
    """Read every request and check it with the model."""
    library = library_of(known)
    numbers = itertools.count(1)
    missing = None if selection.hull is None else MissingElements(Path(selection.hull))
    with progress("reading requests", None) as advance:

        def check(request: Request) -> None:
            make_generator(model, [request], sampling, selection, library, reading=known.reading).check()
            if missing is not None:
                missing.look(elements_of(request))
            if not (number := next(numbers)) % 100:
                advance(number)

        survey = request_files.survey(requests(check))
    if missing is not None and missing.said:
        LOG.warning("%s", missing.said)
    return survey


@dataclass(frozen=True)
class _Run:
    """A run whose requests have all been read and checked."""

    requests: Requests
    single: Request | None
    sampling: SamplingOptions
    selection: SelectionOptions
    options: GenerateOptions
    place: _Place
    model: Model | None
    survey: request_files.Survey
    known: ReferenceOptions

    @property
    def large(self) -> bool:
        """Whether rows stay in parts."""
        return self.survey.n_crystals > blocks.LARGE

    @property
    def cifs(self) -> bool:
        """Whether there is a file for each crystal."""
        return not self.large if self.options.write_cifs is None else self.options.write_cifs

    def split(self) -> Iterator[blocks.RequestBlock]:
        """Split the run into blocks, the units of resumption."""
        requests = request_files.unchanged(self.requests(lambda _: None), self.survey)
        return blocks.split(requests, self.selection, blocks.block_size(self.survey.n_crystals))

    def note(self, rows: Sequence[Mapping[str, Any]] = ()) -> str:
        """Describe how the single request was interpreted; "" for a file of requests.

        Args:
            rows: of its crystals. Where all are made of known ones, the network is not even read.
        """
        if self.single is None:
            return ""
        sampled = not rows or any(row["model"] != analogues.NAME for row in rows)
        generator = make_generator(
            self.model if sampled else None,
            [self.single],
            self.sampling,
            self.selection,
            library_of(self.known),
            reading=self.known.reading,
        )
        choices = generator.choices(0)
        return "; ".join(filter(None, (generator.note(0), _hint(choices), spread(choices, self.single.n))))

    def configuration(self) -> dict[str, Any]:
        """Return the configuration of the run."""
        survey = self.survey
        requests: Any = {
            "requests": survey.n_requests,
            "crystals": survey.n_crystals,
            "sha256": survey.sha256,
        }
        if self.single is not None:
            requests = [self.single.model_dump(exclude_defaults=True) | {"n": self.single.n}]
        return RunFolder.configuration(
            "generate",
            self.sampling,
            self.selection,
            weights=None if self.model is None else self.model.fingerprint,
            **samples.known_facts(self.known),
            requests=requests,
            cifs=self.cifs,
        )

    def generate(self, progress: Progress) -> GenerateResult:
        """Sample, check, rank and store the crystals of all blocks that the folder lacks."""
        out = self.options.out
        large = self.large and out is not None
        # Without a folder nothing is compared: the fingerprint of the weights would read them.
        configuration = {} if out is None else self.configuration()
        folder = RunFolder(out, configuration, table.COLUMNS, parted=large)
        run_units(
            self.split(),
            self._sample,
            folder,
            task=_task(self.selection),
            total=self.survey.n_crystals,
            size=lambda block: block.n,
            progress=progress,
        )
        if large:
            if not folder.finished:
                folder.finish(count_rows(folder.stream(COUNTED), self.selection))
            return GenerateResult(folder.stream, folder.summary(), self.note, large=True)
        folder.finish()
        rows = folder.rows()
        note = partial(self.note, rows)
        return GenerateResult(lambda: rows, count_rows(rows, self.selection), note, large=False)

    def _sample(
        self, units: Iterator[tuple[int, blocks.RequestBlock]], advance: Callable[[int], None]
    ) -> Generator[UnitResult]:
        """Yield the crystals of each block: its rows, and CIFs by name."""
        options = blocks.BlockOptions(
            self.sampling,
            self.selection,
            named=self.survey.n_requests > 1,
            cifs=self.cifs,
            nested=self.large,
            known=self.known,
        )
        todo = (block for _, block in units)
        # Where this process samples, others check.
        workers = os.cpu_count() or 1 if self.place.here else self.place.workers
        with open_place(self.place.cluster, workers) as executor:
            if self.place.here:
                results = blocks.sample_here(self.model, options, todo, executor=executor, progress=advance)
            else:
                bounds: dict[str, Any] = {}
                if self.place.cluster is None:
                    n = self.place.workers
                    # A GPU samples faster than one core checks.
                    check_workers = max(1, (os.cpu_count() or 1) // n)
                    bounds = {"devices": self.place.devices, "check_workers": check_workers, "ahead": 2 * n}
                results = blocks.sample_on(executor, self.model, options, todo, progress=advance, **bounds)
            yield from results


def _task(selection: SelectionOptions) -> str:
    """Return what a run does, for its progress bar."""
    crystals = "plausible crystals" if selection.only_valid else "crystals"
    if selection.energy is None:
        return f"generating {crystals}"
    return f"generating and relaxing {crystals}" if selection.relax else f"{crystals} and their energies"


def _hint(choices: Sequence[Choice]) -> str:
    """Return how to request the most likely Z alone; "" where no other is tried."""
    if not choices:
        return ""
    likeliest = max(choices, key=lambda choice: choice.z_probability or 0.0)
    cell, weight = likeliest.cell, likeliest.z_probability
    return f"--z {cell.z} generates cells of {cell.formula} alone" if cell and weight and weight < 1 else ""


COUNTED = ("request", "valid", "plausible", "rank", "cluster")
"""Columns that decide what is valid, plausible and kept."""


def count_rows(rows: Iterable[Mapping[str, Any]], selection: SelectionOptions) -> dict[str, int]:
    """Count requests, and crystals: all, valid, plausible, distinct (of those ranked) and kept.

    Args:
        rows: those of a request stand together.
    """
    counts = dict.fromkeys(("requests", "crystals", "valid", "plausible", "distinct", "kept"), 0)
    for group in table.by_request(rows):
        counts["requests"] += 1
        counts["crystals"] += len(group)
        for name in ("valid", "plausible"):
            counts[name] += sum(bool(row[name]) for row in group)
        counts["distinct"] += len({row["cluster"] for row in group if row["cluster"] is not None})
        counts["kept"] += len(table.select_rows(group, selection))
    return counts
