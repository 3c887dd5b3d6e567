"""`crystallm generate`."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from crystallm.cli.console import print_json, progress_bars
from crystallm.cli.option_groups import Flat, OutputOptions, Positional, with_argument
from crystallm.crystals.selection import SelectionOptions
from crystallm.execution.place import ExecutionOptions
from crystallm.generation.request import Request, SamplingOptions
from crystallm.pipelines.options import GenerateOptions, OutOptions
from crystallm.references.options import ReferenceOptions

if TYPE_CHECKING:
    from crystallm.pipelines.generate import GenerateResult

TABLE_ROWS = 40
"""Crystals in the printed table, at most; the results have them all."""


def generate(
    formula: Positional = None,
    /,
    *,
    request: Flat[Request] = Request.defaults(),
    sampling: Flat[SamplingOptions] = SamplingOptions.defaults(),
    selection: Flat[SelectionOptions] = SelectionOptions.defaults(),
    execution: Flat[ExecutionOptions] = ExecutionOptions.defaults(),
    options: Flat[GenerateOptions] = GenerateOptions.defaults(),
    known: Flat[ReferenceOptions] = ReferenceOptions.defaults(),
    output: Flat[OutputOptions] = OutputOptions.defaults(),
) -> None:
    """Generate crystals for a formula, for many, or for none.

    crystallm generate TiO2 --z 2 --space-group P4_2/mnm -n 20 --out out/

    crystallm generate LaCrO3 --from references

    Without a formula the model chooses the composition too: of --elements, of what is compatible with
    --space-group, or freely. --out writes one CIF per crystal and results.parquet, and a killed run started
    again does only what is missing. results.parquet holds all samples, also those that --only-valid and
    --best drop. A run of more than 10,000 crystals writes results/part-*.parquet instead, and CIFs only with
    --write-cifs.
    """
    from crystallm.pipelines import generate as pipeline

    request = with_argument(request, "formula", formula)
    result = pipeline.run(
        request,
        sampling,
        selection,
        execution,
        options,
        known=known,
        progress=progress_bars(shown=output.progress),
    )
    show_crystals(result, selection, options, output)


def show_crystals(
    result: GenerateResult, selection: SelectionOptions, options: OutOptions, output: OutputOptions
) -> None:
    """Print the selected crystals of a run, as JSON or as a table with a summary."""
    from crystallm.crystals import table

    selected = (row for rows in table.by_request(result.rows()) for row in table.select_rows(rows, selection))
    if output.as_json:
        print_json(selected)
    elif not output.quiet:
        from crystallm.cli import crystal_tables

        lines = list(itertools.islice(selected, TABLE_ROWS) if result.large else selected)
        crystal_tables.print_crystals(lines, result.note(), result.counts["requests"], TABLE_ROWS)
        crystal_tables.print_summary(result.counts, options.out, parted=result.large)
