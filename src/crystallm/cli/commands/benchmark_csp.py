"""`crystallm benchmark`: a model writes, or others have written; the benchmarks score."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from crystallm.benchmarks.reference_sets import SETS, requests_for
from crystallm.cli.console import print_json, progress, without_nan
from crystallm.cli.option_groups import (
    BatchSize,
    Cluster,
    ConfigFile,
    Constraints,
    Device,
    Dtype,
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
)
from crystallm.errors import InputError
from crystallm.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Executor

    from crystallm.benchmarks.metrics import Line
    from crystallm.benchmarks.reference_sets import Known
    from crystallm.generation.request import SamplingOptions
    from crystallm.pipelines.csp_benchmark import Given, Model
    from crystallm.storage.run_folder import RunFolder


SAMPLES = 100
"""Samples of a block, which is kept as a whole; one entry at least."""


def csp(
    data: Annotated[
        str | None,
        Parameter(
            help="perov_5, carbon_24, mp_20, mpts_52, or a CSV(.gz) or Parquet file with a column 'cif'."
        ),
    ] = None,
    *,
    data_dir: Annotated[
        Path | None, Parameter(help="Folder that holds perov_5/test.csv.gz and so on (CRYSTALLM_DATA).")
    ] = None,
    n: Annotated[
        str | None, Parameter(name=["-n", "--n"], help="Samples an entry, one or several (1,20).")
    ] = None,
    limit: Annotated[
        int | None,
        Parameter(name=["--limit", "--entries"], help="So many entries, evenly spread over the split (all)."),
    ] = None,
    split: Annotated[
        str | None,
        Parameter(
            help="train, val or test of a named set (test); of a file, only the rows whose column says so."
        ),
    ] = None,
    space_group: Annotated[
        bool | None, Parameter(negative=(), help="Put the known space group into the prompt, too.")
    ] = None,
    generated: Annotated[
        Path | None,
        Parameter(
            help="Crystals that were written elsewhere, to be judged: a folder or archive of CIFs ID__N.cif."
        ),
    ] = None,
    composition_test: Annotated[
        bool, Parameter(help="Count only what passes the SMACT test, as the paper.")
    ] = True,
    agreement: Annotated[
        bool,
        Parameter(
            help="Choose one of n samples, too, by agreement and likelihood: a third of a second an entry."
        ),
    ] = True,
    model: ModelName = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = None,
    constraints: Constraints = None,
    device: Device = None,
    dtype: Dtype = None,
    batch_size: BatchSize = None,
    workers: Annotated[int | None, Parameter(help="Processes that compare (one a core).")] = None,
    cluster: Cluster = None,
    out: Annotated[
        Path | None, Parameter(help="Folder for scores.json, report.html and results.parquet.")
    ] = None,
    config: ConfigFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Crystal structure prediction: how often the known structure is among n samples for its composition.

    crystallm benchmark mp_20 -n 1,20 --limit 500 --out out/mp_20

    The prompt holds the composition of the known structure's conventional cell. A match is one of pymatgen's
    StructureMatcher (stol 0.5, angle_tol 10, ltol 0.3); rates are over all entries, with bootstrap intervals.
    With --out, a killed run started again goes on. With --generated, crystals of any tool are scored.
    """
    flags = {
        "data": data, "n": n, "limit": limit, "split": split, "model": model, "temperature": temperature,
        "top_k": top_k, "top_p": top_p, "seed": seed, "constraints": constraints, "device": device,
        "dtype": dtype,
        "batch_size": batch_size, "workers": workers, "out": out, "data_dir": data_dir,
        "space_group": space_group, "generated": generated, "cluster": cluster,
    }  # fmt: skip
    options = merged(config, flags)
    names = (
        "data",
        "n",
        "limit",
        "split",
        "workers",
        "out",
        "data_dir",
        "space_group",
        "generated",
        "cluster",
    )
    own = {name: options.pop(name, None) for name in names}
    if own["data"] is None:
        raise InputError(f"no data: name one of {', '.join(SETS)}, or a file with a column 'cif'")
    numbers = _numbers(own["n"])
    from crystallm.benchmarks import csp_table
    from crystallm.benchmarks.reference_sets import find_set, read_known
    from crystallm.storage import files, run_folder

    settings = sampling(options)
    folder = None if own["out"] is None else Path(str(own["out"]))
    if folder is not None:
        files.check_place(folder)
    name, part = str(own["data"]), own["split"]
    spec = name
    if name in SETS and not Path(name).exists():
        spec = str(find_set(name, part, own["data_dir"]))
        part = None
    truths = read_known(spec, split=part, entries=own["limit"])
    n_workers = own["workers"] or os.cpu_count() or 1
    shown = not (quiet or json)
    writer: Given | Model
    if own["generated"] is None:
        # The workers of a cluster write; here, where no GPU may be, the requests are understood.
        device = settings.device if own["cluster"] is None else "cpu"
        group = bool(own["space_group"])
        writer, question = _written(truths, max(numbers), settings, with_group=group, device=device)
    else:
        writer, question = _given(Path(str(own["generated"])), truths, max(numbers))
    question |= {"command": "benchmark", "version": __version__, "n": list(numbers)}
    question |= {"data": Path(spec).name, "limit": own["limit"], "split": own["split"]}
    question |= {"composition_test": composition_test, "agreement": agreement, "entries": len(truths)}
    blocks = _blocks(len(truths), max(numbers))
    keep = (
        None
        if folder is None
        else run_folder.RunFolder(folder, question, csp_table.COLUMNS, n_units=len(blocks))
    )
    done = 0

    def compared(_: int) -> None:
        nonlocal done
        done += 1
        advance(done)

    if keep is not None:
        keep.check()
    with executor(own) as where:
        rows = _rows(
            truths, blocks, writer, keep, where,
            n=max(numbers), workers=n_workers, composition_test=composition_test, agreement=agreement,
            shown=shown,
        )  # fmt: skip
        with progress("comparing with polymorphs", None, shown=shown) as advance:
            lines = csp_table.tabulate(
                truths, rows, numbers, composition_test=composition_test, workers=n_workers, on_done=compared,
                executor=where,
            )  # fmt: skip
    title = f"{name}, {len(truths)} entries, {question.get('model') or Path(str(own['generated'])).name}"
    record = _record(lines, question)
    if folder is not None:
        _keep(folder, title, lines, record, csp_table.growth(len(truths), rows, max(numbers)))
    if json:
        print_json([record])
    elif not quiet:
        from crystallm.cli import crystal_tables

        crystal_tables.print_lines(title, lines)


def _written(
    truths: Sequence[Known], n: int, settings: SamplingOptions, *, with_group: bool, device: str
) -> tuple[Model, dict[str, Any]]:
    """What writes samples for some of the entries with a model, and what is asked of it."""
    from crystallm.generation.generator import Generator
    from crystallm.models.load import load_model
    from crystallm.models.model import fingerprint
    from crystallm.pipelines.csp_benchmark import Model

    model = load_model(settings.model, device=device, dtype=settings.dtype)
    context = None if model.language.slides else model.config.context
    requests = requests_for([known.structure for known in truths], n, with_group=with_group, context=context)
    places = {i: place for place, i in enumerate(i for i, r in enumerate(requests) if r is not None)}
    generator = Generator(model, [request for request in requests if request is not None], settings)
    question = settings.model_dump(exclude={"device", "batch_size"})
    return Model(generator, places), question | {"space_group": with_group, "weights": fingerprint(model)}


def _given(path: Path, truths: Sequence[Known], n: int) -> tuple[Given, dict[str, Any]]:
    """What hands out samples that others wrote, and which they are.

    Raises:
        InputError: no file is named after an entry.
    """
    from crystallm.benchmarks.csp_table import Sampled
    from crystallm.pipelines.csp_benchmark import Given
    from crystallm.sources import collection

    found: dict[str, dict[int, str | None]] = defaultdict(dict)
    for entry in collection.read_cifs(path):
        name, sign, number = Path(entry.id).name.rpartition("__")
        if sign and number.isdecimal():
            found[name][int(number)] = entry.text
    known = {truth.id for truth in truths}
    if not known & found.keys():
        raise InputError(
            f"{str(path)!r} holds no CIF named after an entry, such as {truths[0].id}__1.cif: name them "
            "ID__N.cif, N counting the samples"
        )
    samples = {
        i: [Sampled(texts[number]) for number in sorted(texts)[:n]]
        for i, truth in enumerate(truths)
        if (texts := found.get(truth.id))
    }
    return Given(samples), {"generated": path.name, "crystals": sum(map(len, found.values()))}


def _blocks(n_entries: int, n_samples: int) -> list[range]:
    """Entries that are written and judged together."""
    size = max(1, SAMPLES // n_samples)
    return [range(start, min(start + size, n_entries)) for start in range(0, n_entries, size)]


def _rows(
    truths: Sequence[Known],
    blocks: Sequence[range],
    writer: Given | Model,
    folder: RunFolder | None,
    where: Executor | None,
    *,
    n: int,
    workers: int,
    composition_test: bool,
    agreement: bool,
    shown: bool,
) -> list[dict[str, Any]]:
    """A row for each sample of all entries; those of an unfinished run are not written again."""
    from crystallm.pipelines import csp_benchmark

    todo = sorted(range(len(blocks)) if folder is None else folder.open())
    before = len(truths) - sum(len(blocks[number]) for number in todo)
    rows: dict[int, list[dict[str, Any]]] = {}
    with progress("writing and judging entries", len(truths), shown=shown) as advance:
        found: Iterator[tuple[int, list[dict[str, Any]]]]
        chosen = {number: blocks[number] for number in todo}
        if where is None:
            found = csp_benchmark.here(
                truths, chosen, writer, n, n_workers=workers, smact=composition_test, agreement=agreement
            )
        else:
            found = csp_benchmark.there(
                where, truths, chosen, writer, n, smact=composition_test, agreement=agreement,
                progress=lambda done: advance(before + done),
            )  # fmt: skip
        for number, block in found:
            if folder is None:
                rows[number] = block
            else:
                folder.write_unit(number, block, {})
            if where is None:
                before += len(blocks[number])
                advance(before)
    if folder is None:
        return [row for number in todo for row in rows[number]]
    folder.finish()
    return folder.rows()


def _record(lines: Sequence[Line], question: dict[str, Any]) -> dict[str, Any]:
    """The table as JSON values."""
    from dataclasses import asdict

    table = [without_nan(asdict(line)) for line in lines]
    return {"benchmark": "csp", "n_entries": question["entries"], "lines": table, "question": question}


def _keep(
    folder: Path,
    title: str,
    lines: Sequence[Line],
    record: dict[str, Any],
    growth: dict[str, list[tuple[float, float]]],
) -> None:
    """Write scores and report."""
    from crystallm.benchmarks import csp_table
    from crystallm.storage import files
    from crystallm.visualization import charts
    from crystallm.visualization.html_report import HtmlReport

    report = HtmlReport(title)
    report.table(csp_table.LINES, [csp_table.line_cells(line) for line in lines])
    report.paragraph(
        "Intervals hold 95 % of the values over 2,000 bootstrap resamples of the entries. Match rates are "
        "over all entries. as the paper: samples with a sensible cell, whose composition passes the SMACT "
        "test; all samples: without that test; valid samples: those that pass all checks of `crystallm "
        "evaluate`; one of n: a single answer, chosen without knowledge of the truth; METRe and cRMSE: arXiv "
        "2509.12178."
    )
    if any(len(points) > 1 for points in growth.values()):
        picture = charts.curves(growth, labels=("samples an entry", "match rate, %"))
        report.picture(picture, "Match rate against the number of samples")
    report.table(
        ("what was asked", "value"), [(name, str(value)) for name, value in record["question"].items()]
    )
    files.write_json(folder / "scores.json", record)
    files.write_atomically(folder / "report.html", report.html().encode())


def _numbers(value: Any) -> tuple[int, ...]:
    """Numbers of samples, of '1,20', 20 or [1, 20]."""
    parts = str(value if value is not None else "1,20").strip("[]() ").split(",")
    try:
        numbers = tuple(int(part) for part in parts)
    except ValueError:
        numbers = (0,)
    if min(numbers) < 1:
        raise InputError(f"n = {value!r}: write whole numbers from 1, such as 1,20")
    return numbers
