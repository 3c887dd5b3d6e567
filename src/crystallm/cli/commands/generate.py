"""`crystallm generate` and `crystallm models`."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from crystallm.cli.console import print_json, progress, progress_bars
from crystallm.cli.option_groups import Flat, Json, OutputOptions, with_argument
from crystallm.crystals.selection import SelectionOptions
from crystallm.execution.place import ExecutionOptions
from crystallm.generation.request import Request, SamplingOptions
from crystallm.pipelines.options import GenerateOptions, OutOptions

if TYPE_CHECKING:
    from crystallm.pipelines.generate import GenerateResult

TABLE_ROWS = 40
"""Crystals in the printed table, at most; the results have them all."""


def generate(
    formula: str | None = None,
    /,
    *,
    request: Flat[Request] = Request.defaults(),
    sampling: Flat[SamplingOptions] = SamplingOptions.defaults(),
    selection: Flat[SelectionOptions] = SelectionOptions.defaults(),
    execution: Flat[ExecutionOptions] = ExecutionOptions.defaults(),
    options: Flat[GenerateOptions] = GenerateOptions.defaults(),
    output: Flat[OutputOptions] = OutputOptions.defaults(),
) -> None:
    """Generate crystals for a formula, for many, or for none.

    crystallm generate TiO2 --z 2 --space-group P4_2/mnm -n 20 --out out/

    Without a formula the model chooses the composition too: of --elements, of what is compatible with
    --space-group, or freely. --out writes one CIF per crystal and results.parquet, and a killed run started
    again does only what is missing. results.parquet holds all samples, also those that --only-valid and
    --best drop. A run of more than 10,000 crystals writes results/part-*.parquet instead, and CIFs only with
    --write-cifs.
    """
    from crystallm.pipelines import generate as pipeline

    request = with_argument(request, "formula", formula)
    result = pipeline.run(
        request, sampling, selection, execution, options, progress=progress_bars(shown=output.progress)
    )
    show_crystals(result, selection, options, output)


def show_crystals(
    result: GenerateResult, selection: SelectionOptions, options: OutOptions, output: OutputOptions
) -> None:
    """Print the selected crystals of a run, as JSON or as a table with a summary."""
    from crystallm.crystals import table

    selected = (row for rows in table.by_request(result.rows()) for row in table.kept(rows, selection))
    if output.as_json:
        print_json(selected)
    elif not output.quiet:
        from crystallm.cli import crystal_tables

        lines = list(itertools.islice(selected, TABLE_ROWS) if result.large else selected)
        crystal_tables.print_crystals(lines, result.note(), result.counts["requests"], TABLE_ROWS)
        crystal_tables.print_summary(result.counts, options.out, parted=result.large)


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
