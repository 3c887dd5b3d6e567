"""`crystallm generate` and `crystallm models`."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from cyclopts import Parameter

from crystallm.cli.console import paced, print_json, progress
from crystallm.cli.option_groups import (
    BatchSize,
    Cluster,
    ConfigFile,
    Dtype,
    Formation,
    HullFile,
    Json,
    ModelName,
    Quiet,
    Seed,
    Temperature,
    TopK,
    TopP,
    executor,
    merged,
    sampling,
    whole,
)
from crystallm.errors import CrystallmError, InputError
from crystallm.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from concurrent.futures import Executor

    from crystallm.crystals.selection import SelectionOptions
    from crystallm.generation.choices import Choice
    from crystallm.generation.request import Request, SamplingOptions
    from crystallm.models.model import Model
    from crystallm.pipelines.generate import Block, Done
    from crystallm.pipelines.request_files import Survey


TABLE_ROWS = 40
"""Crystals in the printed table, at most; the results have them all."""

LONGEST = 7 * 24 * 3600.0
"""Seconds that a process of this machine may take for one task; a bound that nobody meets."""


class Place(NamedTuple):
    """Where crystals are written: on a cluster, in so many processes of this machine, or in this one."""

    cluster: str | None
    workers: int
    devices: tuple[str, ...]

    @property
    def here(self) -> bool:
        """Whether it is this process."""
        return self.cluster is None and self.workers == 1


class Asked(NamedTuple):
    """What the options ask for."""

    requests: Callable[[Callable[[Request], object]], Iterator[Request]]
    request: Request | None
    settings: SamplingOptions
    selection: SelectionOptions
    place: Place
    cifs: bool | None
    out: Path | None


class Written(NamedTuple):
    """What a run gave: its rows, as often as they are asked for, and what is said of it."""

    rows: Callable[[], Iterable[dict[str, Any]]]
    counts: dict[str, int]
    note: Callable[[], str]
    large: bool


def generate(
    formula: Annotated[
        str | None, Parameter(help="As people write it: TiO2, '(NH4)2SO4'; Ti2O4: a cell of two units.")
    ] = None,
    *,
    z: Annotated[
        int | Literal["auto"] | None,
        Parameter(
            name=["--z", "-z"],
            help="Formula units in the cell; auto: likely ones. Without it: auto for TiO2, and for Ti2O4, a "
            "multiple, the cell as written.",
        ),
    ] = None,
    space_group: Annotated[
        str | None,
        Parameter(help="Number or symbol: 136, P4_2/mnm, 'P 42/m n m'; auto: spread over likely ones."),
    ] = None,
    elements: Annotated[
        str | None,
        Parameter(help="In place of a formula: a chemical system, Li-Fe-O; the network chooses the counts."),
    ] = None,
    elements_subset: Annotated[
        bool | None, Parameter(negative=(), help="With --elements: some of them may be left out.")
    ] = None,
    n: Annotated[int | None, Parameter(name=["-n", "--n"], help="Crystals for each request (10).")] = None,
    out: Annotated[
        Path | None,
        Parameter(help="Folder for CIFs and results.parquet (or results/); without it, none is written."),
    ] = None,
    formulas: Annotated[
        Path | None,
        Parameter(
            help="File of requests: CSV or Parquet, columns formula (or elements)[,z][,space_group][,n]; "
            ".txt, a formula a line; .csv.gz, .txt.gz. Needs --out."
        ),
    ] = None,
    valid: Annotated[
        bool | None, Parameter(negative=(), help="Write on until n crystals are valid, and keep those.")
    ] = None,
    max_tries: Annotated[
        int | None, Parameter(help="With --valid: crystals written for a request, at most (10 n).")
    ] = None,
    rank: Annotated[
        Literal["agreement", "likelihood", "both", "energy"] | None,
        Parameter(help="Fold equal crystals, count them, and put the best first (energy, with --energy)."),
    ] = None,
    best: Annotated[
        int | None, Parameter(help="Keep so many distinct crystals of a request; ranks by agreement.")
    ] = None,
    energy: Annotated[
        str | None,
        Parameter(help="Ask this energy model: chgnet, sevennet, or module:factory of any ASE calculator."),
    ] = None,
    relax: Annotated[
        bool | None, Parameter(negative=(), help="With --energy: relax each crystal, its symmetry kept.")
    ] = None,
    formation: Formation = None,
    hull: HullFile = None,
    prompt: Annotated[
        str | None,
        Parameter(
            help=r"Any beginning of a text in the model's language, in place of a formula; \n is a newline."
        ),
    ] = None,
    begin: Annotated[
        Path | None, Parameter(help="A file with such a beginning, in place of --prompt.")
    ] = None,
    like: Annotated[
        Path | None,
        Parameter(
            help="A crystal whose group and Wyckoff positions to keep, with the elements of the formula."
        ),
    ] = None,
    model: ModelName = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = None,
    constraints: Annotated[
        Literal["full", "syntax", "none"] | None,
        Parameter(help="full: crystallography and formula; syntax: the form alone; none (full)."),
    ] = None,
    device: Annotated[
        str | None,
        Parameter(help="auto, cpu, cuda, cuda:1, mps (auto); several, cuda:0,cuda:1, or all GPUs: all."),
    ] = None,
    dtype: Dtype = None,
    workers: Annotated[
        int | None,
        Parameter(help="Processes of this machine that write, in turn on the devices (one for each device)."),
    ] = None,
    threads: Annotated[
        int | None,
        Parameter(help="Threads of this process for the network (the cores it may use); of a worker: 1."),
    ] = None,
    cifs: Annotated[
        bool | None, Parameter(help="A CIF for each crystal (yes, but not for more than 10,000 crystals).")
    ] = None,
    batch_size: BatchSize = None,
    max_new_tokens: Annotated[int | None, Parameter(help="Tokens of one crystal, at most (3000).")] = None,
    cluster: Cluster = None,
    config: ConfigFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write crystals for a formula, for many, or for none.

    crystallm generate TiO2 --z 2 --space-group P4_2/mnm -n 20 --out out/

    Without a formula the network chooses the composition too: of --elements, of what can fill the
    --space-group, or of anything. With --out, one CIF a crystal and results.parquet are written; a killed
    run started again does only what is missing. results.parquet has all that was written, also what --valid
    and --best do not keep. A run of more than 10,000 crystals writes results/part-*.parquet in its place, and
    CIFs with --cifs only.
    """
    flags = {
        "formula": formula, "z": z, "space_group": space_group, "n": n, "out": out, "formulas": formulas,
        "prompt": prompt, "model": model, "temperature": temperature, "top_k": top_k, "top_p": top_p,
        "seed": seed, "constraints": constraints, "device": device, "dtype": dtype, "batch_size": batch_size,
        "max_new_tokens": max_new_tokens, "valid": valid, "max_tries": max_tries, "rank": rank, "best": best,
        "cluster": cluster, "workers": workers, "threads": threads, "cifs": cifs, "energy": energy,
        "relax": relax, "formation": formation, "hull": hull, "begin": begin, "like": like,
        "elements": elements, "elements_subset": elements_subset,
    }  # fmt: skip
    asked = _asked(merged(config, flags))
    written = _generate(asked, shown=not (quiet or json))
    from crystallm.crystals import table

    kept = (row for found in table.by_request(written.rows()) for row in table.kept(found, asked.selection))
    if json:
        print_json(kept)
    elif not quiet:
        from crystallm.cli import crystal_tables

        lines = list(itertools.islice(kept, TABLE_ROWS) if written.large else kept)
        crystal_tables.print_crystals(lines, written.note(), written.counts["requests"], TABLE_ROWS)
        crystal_tables.print_summary(written.counts, asked.out, parted=written.large)


def _asked(options: dict[str, Any]) -> Asked:
    """What the options ask for.

    Raises:
        InputError: options that are out of range or cannot stand together.
    """
    from crystallm.crystallography import formula
    from crystallm.crystals.selection import SelectionOptions
    from crystallm.generation.interpretation import interpret
    from crystallm.generation.request import Request, elements_of, with_default_z
    from crystallm.options import validated
    from crystallm.pipelines import request_files

    options = dict(options)
    out, formulas, cifs = (options.pop(name, None) for name in ("out", "formulas", "cifs"))
    place = _place(options)
    if isinstance(options.get("prompt"), str):
        options["prompt"] = options["prompt"].replace("\\n", "\n")
    named = options.get("formula")
    _begin(options)
    one = {name: options.pop(name) for name in tuple(options) if name in Request.model_fields}
    kept = {name: options.pop(name) for name in tuple(options) if name in SelectionOptions.model_fields}
    if "hull" in kept:
        kept["hull"] = str(kept["hull"])
    settings = sampling(options)
    selection = validated(SelectionOptions, kept)
    if selection.energy is not None:
        from crystallm.energy.registry import require

        require(selection.energy)
    request = validated(Request, one)
    folder = None if out is None else Path(str(out))
    if formulas is None:
        if request.formula is not None and Path(request.formula).suffix and Path(request.formula).is_file():
            raise InputError(f"{request.formula!r} is a file, no formula: name it with --formulas")
        request = with_default_z(request)
        interpret(request, fitting=settings.constraints == "full")
    if selection.hull is not None:
        from crystallm.thermodynamics.hull import Hull

        # A file that is none, or does not go with what is asked for, is refused before anything is written.
        Hull(Path(selection.hull)).require(
            elements_of(request) if named is None else formula.parse(str(named))
        )
    if formulas is None:
        return Asked(partial(_just, request), request, settings, selection, place, cifs, folder)
    if set(one) - {"n"}:
        raise InputError(f"--formulas and {', '.join(sorted(set(one) - {'n'}))}: give one or the other")
    if folder is None:
        raise InputError("--formulas needs --out: name a folder for the results")
    path = Path(str(formulas))

    def requests(check: Callable[[Request], object]) -> Iterator[Request]:
        return request_files.checked(path, n=request.n, check=check)

    return Asked(requests, None, settings, selection, place, cifs, folder)


def _begin(options: dict[str, Any]) -> None:
    """Put a prompt in the place of `begin`, or of `like` with its formula.

    Raises:
        InputError: things that cannot stand together, or a crystal that is none or of other proportions.
        CrystallmError: the file cannot be read.
    """
    begin, known = options.pop("begin", None), options.pop("like", None)
    given = [
        name
        for name in ("z", "space_group", "elements", "prompt", "formulas")
        if options.get(name) is not None
    ]
    if begin is not None:
        given += [name for name in ("formula",) if options.get(name) is not None]
        given += [] if known is None else ["like"]
        if given:
            raise InputError(f"--begin and {', '.join(given)}: give one or the other")
        options["prompt"] = _text(Path(str(begin)))
    elif known is not None:
        if options.get("formula") is None or given:
            more = f", not {', '.join(given)}" if given else ""
            raise InputError(f"--like takes a formula{more}: crystallm generate YMn6Ge6 --like ZrMn6Sn6.cif")
        from crystallm.generation import template
        from crystallm.language import get_language
        from crystallm.models import load

        language = get_language(load.language_of(str(options.get("model", "default"))))
        ids = template.like(template.read(str(known)), str(options.pop("formula")), language)
        options["prompt"] = language.text(ids)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CrystallmError(f"{str(path)!r} cannot be read: {error}") from error


def _just(request: Request, check: Callable[[Request], object]) -> Iterator[Request]:
    check(request)
    yield request


def _place(options: dict[str, Any]) -> Place:
    """Where to write; takes the options that say so out, and leaves one device for this process.

    Raises:
        InputError: a device or number that is none, or things that cannot stand together.
    """
    from crystallm.execution.devices import devices_of, use_threads

    cluster, n_workers = options.pop("cluster", None), options.pop("workers", None)
    threads = options.pop("threads", None)
    devices = devices_of(str(options.get("device", "auto")))
    if cluster is not None and (n_workers is not None or len(devices) > 1):
        raise InputError("--cluster and --workers, or several devices: give one or the other")
    n_workers = whole("workers", n_workers, len(devices))
    if n_workers < len(devices):
        raise InputError(f"workers = {n_workers} for {len(devices)} devices: give one for each, at least")
    if threads is not None and (cluster is not None or n_workers > 1):
        raise InputError("--threads are those of this process, and others have one each: leave it out")
    use_threads(None if threads is None else whole("threads", threads, 1))
    options["device"] = devices[0]
    return Place(cluster, n_workers, devices)


@dataclass(frozen=True)
class Run:
    """What is written, once all requests have been read and found good.

    Attributes:
        asked: what the options ask for.
        model: loaded.
        found: what there is to say of the requests.
    """

    asked: Asked
    model: Model
    found: Survey

    @property
    def large(self) -> bool:
        """Whether rows stay in parts."""
        from crystallm.pipelines import generate as pipelines_generate

        return self.found.n_crystals > pipelines_generate.LARGE

    @property
    def cifs(self) -> bool:
        """Whether there is a file for each crystal."""
        return not self.large if self.asked.cifs is None else self.asked.cifs

    def blocks(self) -> Iterator[Block]:
        """The run in its units of work."""
        from crystallm.pipelines import generate as pipelines_generate
        from crystallm.pipelines import request_files

        requests = request_files.unchanged(self.asked.requests(lambda _: None), self.found)
        return pipelines_generate.blocks(
            requests, self.asked.selection, pipelines_generate.block_size(self.found.n_crystals)
        )

    def note(self) -> str:
        """How the request was read; "" if there may be several."""
        from crystallm.generation.generator import Generator

        request = self.asked.request
        if request is None:
            return ""
        generator = Generator(self.model, [request], self.asked.settings, self.asked.selection)
        return generator.note(0) + _hint(generator.choices(0))

    def question(self) -> dict[str, Any]:
        """What decides the crystals: not the devices, the size of batches, or where they are written."""
        from crystallm.models.model import fingerprint

        asked, found = self.asked, self.found
        requests: Any = {"requests": found.n_requests, "crystals": found.n_crystals, "sha256": found.sha256}
        if asked.request is not None:
            requests = [asked.request.model_dump(exclude_defaults=True) | {"n": asked.request.n}]
        return asked.settings.model_dump(exclude={"device", "batch_size"}) | {
            **asked.selection.model_dump(exclude_defaults=True),
            "command": "generate",
            "version": __version__,
            "weights": fingerprint(self.model),
            "requests": requests,
            "cifs": self.cifs,
        }


def _hint(choices: Sequence[Choice]) -> str:
    """How to ask for the likeliest Z alone; "" where no other is tried."""
    likeliest = max(choices, key=lambda choice: choice.z_weight or 0.0)
    cell, weight = likeliest.cell, likeliest.z_weight
    return f"; --z {cell.z} writes cells of {cell.formula} alone" if cell and weight and weight < 1 else ""


def _generate(asked: Asked, *, shown: bool) -> Written:
    """Write, judge, rank and keep the crystals of all requests; what can be refused is refused first."""
    from crystallm.crystals.table import COLUMNS
    from crystallm.storage import files, run_folder

    if asked.out is not None:
        files.check_place(asked.out)
    run = _understood(asked, shown=shown)
    sizes = [block.n for block in run.blocks()]
    if asked.out is None:
        everything = _done(run, sizes, set(range(len(sizes))), lambda: None, shown=shown)
        rows = [row for done in everything for row in done.rows]
        return Written(lambda: rows, _counts(rows, asked.selection), run.note, large=False)
    folder = run_folder.RunFolder(asked.out, run.question(), COLUMNS, n_units=len(sizes), parted=run.large)
    # Closed at once where a disk is full: no process goes on behind an error.
    with contextlib.closing(_done(run, sizes, folder.check(), folder.open, shown=shown)) as written:
        for done in written:
            folder.write_unit(done.block, done.rows, done.cifs)
    if not run.large:
        folder.finish()
        rows = folder.rows()
        return Written(lambda: rows, _counts(rows, asked.selection), run.note, large=False)
    if not folder.finished:
        folder.finish(_counts(folder.stream(COUNTED), asked.selection))
    return Written(folder.stream, folder.summary(), run.note, large=True)


def _understood(asked: Asked, *, shown: bool) -> Run:
    """Load the model, and look at each request."""
    from crystallm.generation.generator import Generator
    from crystallm.generation.request import elements_of
    from crystallm.models.load import load_model
    from crystallm.pipelines import request_files
    from crystallm.thermodynamics.hull import MissingElements

    # Where others write, there may be no GPU here: the requests are understood, and no more.
    device, dtype = (asked.settings.device if asked.place.here else "cpu"), asked.settings.dtype
    model = load_model(asked.settings.model, device=device, dtype=dtype)

    numbers = itertools.count(1)
    lacking = None if asked.selection.hull is None else MissingElements(Path(asked.selection.hull))
    with progress("reading requests", None, shown=shown) as advance:

        def check(request: Request) -> None:
            Generator(model, [request], asked.settings, asked.selection).check()
            if lacking is not None:
                lacking.look(elements_of(request))
            if not (number := next(numbers)) % 1000:
                advance(number)

        run = Run(asked, model, request_files.survey(asked.requests(check)))
    if lacking is not None and lacking.said:
        sys.stderr.write(f"crystallm: {lacking.said}\n")
    return run


def _done(
    run: Run, sizes: Sequence[int], todo: AbstractSet[int], begin: Callable[[], object], *, shown: bool
) -> Generator[Done]:
    """What the blocks give that are still to be done.

    Args:
        run: understood.
        sizes: crystals of each block.
        todo: numbers of the blocks that are still to be done.
        begin: called when all is ready.
        shown: whether progress is told.
    """
    from crystallm.pipelines import generate as pipelines_generate

    asked = run.asked
    writing = pipelines_generate.Writing(
        asked.settings,
        asked.selection,
        named=run.found.n_requests > 1,
        cifs=run.cifs,
        nested=run.large,
    )
    what = "writing valid crystals" if asked.selection.valid else "writing crystals"
    before = run.found.n_crystals - sum(sizes[number] for number in todo)
    with (
        _executor(asked.place, len(todo)) as where,
        paced(what, run.found.n_crystals, before, shown=shown) as advance,
    ):
        begin()
        blocks = (block for block in run.blocks() if block.number in todo)
        if where is None:
            yield from pipelines_generate.write(run.model, writing, blocks, progress=advance)
            return
        place: dict[str, Any] = {}
        if asked.place.cluster is None:
            n = asked.place.workers
            # A GPU writes faster than one core judges.
            judges = max(1, (os.cpu_count() or 1) // n)
            place = {"devices": asked.place.devices, "judges": judges, "ahead": 2 * n}
        yield from pipelines_generate.write_on(where, run.model, writing, blocks, progress=advance, **place)


@contextlib.contextmanager
def _executor(place: Place, n_blocks: int) -> Iterator[Executor | None]:
    """What writes: a cluster, processes of this machine, or (None) this process, with others that judge."""
    from crystallm.execution import mapping
    from crystallm.execution import pool as execution_pool

    if n_blocks and place.cluster is not None:
        with executor({"cluster": place.cluster}) as connected:
            yield connected
    elif n_blocks and not place.here:
        # No limit of memory: a GPU's driver asks for more addresses than there is memory.
        with execution_pool.Pool(place.workers, seconds=LONGEST, memory_gb=None) as pool:
            yield pool
    else:
        with mapping.kept(os.cpu_count() or 1, end=True):
            yield None


COUNTED = ("request", "valid", "rank", "cluster")
"""Columns that tell what is valid and what is kept."""


def _counts(rows: Iterable[Mapping[str, Any]], selection: SelectionOptions) -> dict[str, int]:
    """What rows add up to."""
    from crystallm.crystals import table

    counts = dict.fromkeys(("requests", "crystals", "valid", "kept"), 0)
    for found in table.by_request(rows):
        counts["requests"] += 1
        counts["crystals"] += len(found)
        counts["valid"] += sum(bool(row["valid"]) for row in found)
        counts["kept"] += len(table.kept(found, selection))
    return counts


def models(
    *,
    fetch: Annotated[
        str | None, Parameter(help="Get a published model, checked and resumed: its name; then --model NAME.")
    ] = None,
    published: Annotated[
        bool, Parameter(negative=(), help="List the published CrystaLLM models in place of the bundled ones.")
    ] = False,
    json: Json = False,
) -> None:
    """List the models that the package brings along, or get a published one."""
    from crystallm.cli import crystal_tables
    from crystallm.models import download
    from crystallm.models.load import list_models

    if fetch is not None:
        with progress(f"fetching {fetch}", None, shown=not json) as advance:
            place = download.fetch(fetch, progress=lambda done, _: advance(done))
        print_json([{"name": fetch, "path": str(place)}]) if json else print(place)  # noqa: T201 - the result
        return
    if published:
        rows = [
            {"name": name, "what": what, "here": download.path(name).exists()}
            for name, what in download.listed()["models"].items()
        ]
        if json:
            print_json(rows)
        else:
            crystal_tables.print_published(
                rows, str(download.listed()["source"]), str(download.listed()["licence"])
            )
        return
    found = [_described(name) for name in list_models()]
    if json:
        print_json(found)
    else:
        crystal_tables.print_models(found)


def _described(name: str) -> dict[str, Any]:
    """What there is to say of a bundled model."""
    from crystallm.models.load import load_model

    model = load_model(name, device="cpu")
    return {
        "name": name,
        "language": model.language.name,
        "parameters": model.network.num_parameters(),
        "context": model.config.context,
        "card": model.card,
    }
