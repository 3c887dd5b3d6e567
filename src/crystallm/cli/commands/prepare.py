"""`crystallm prepare` and `crystallm prompts`: collections become training data, and prompts."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from crystallm.cli.console import page, plain, print_json, print_table, progress_bars
from crystallm.cli.option_groups import Flat, OutputOptions, Positional, with_argument
from crystallm.datasets.options import PrepareFiles, PrepareOptions, PromptOptions
from crystallm.errors import InputError
from crystallm.execution.place import ExecutionOptions, WorkerOptions

if TYPE_CHECKING:
    from pathlib import Path

    from crystallm.datasets.report import PreparationReport

N_REASONS, N_SKIPPED = 10, 5
"""Maximum number of reasons, and of crystals without a prompt, that are printed."""


def prepare(
    *inputs: str,
    files: Flat[PrepareFiles] = PrepareFiles.defaults(),
    options: Flat[PrepareOptions] = PrepareOptions.defaults(),
    execution: Flat[ExecutionOptions] = ExecutionOptions.defaults(),
    output: Flat[OutputOptions] = OutputOptions.defaults(),
) -> None:
    """Turn collections of structures into tokens for training, and report what became of every row.

    crystallm prepare perov_5/train.csv.gz=train perov_5/val.csv.gz=val --out data/

    crystallm prepare cifs/ more.extxyz --exclude mp_20/test.csv.gz --out mine/

    Rejected rows are in rejected.parquet with step and reason; report.html has counts and charts. A killed
    run started again resumes.
    """
    from crystallm.datasets import prepare as preparation
    from crystallm.execution.place import open_cluster

    files = with_argument(files, "inputs", inputs or None)
    if not files.inputs:
        raise InputError("no input: name collections of structures, such as cifs/ or train.csv.gz")
    if files.out is None:
        raise InputError("--out is missing: name a folder for the data set")
    with open_cluster(execution.cluster) as executor:
        report = preparation.prepare(
            files.inputs,
            files.out,
            options,
            workers=execution.workers or os.cpu_count() or 1,
            executor=executor,
            progress=progress_bars(shown=output.progress),
        )
    if output.as_json:
        print_json([asdict(report) | {"written": report.written}])
    elif not output.quiet:
        print_report(report, files.out)


def print_report(report: PreparationReport, folder: Path) -> None:
    """Print what became of the rows of a preparation."""
    console = page()
    lines = []
    for split, n in report.crystals.items():
        tokens = report.tokens[split]
        lines.append((split, f"{n:,}", f"{tokens:,}", f"{tokens / n:.1f}" if n else "-"))
    n_columns = 2 if report.language == "none" else 4
    heads = ("split", "crystals", "tokens", "tokens a crystal")[:n_columns]
    title = f"{folder}: {report.written:,} of {report.read:,} rows"
    print_table(heads, [line[:n_columns] for line in lines], title)
    for name, about in report.properties.items():
        known = f"{about['n']:,} values"
        if about["n"]:
            known += f", {about['min']:.4g} to {about['max']:.4g} {about['unit']}, mean {about['mean']:.4g}"
        console.print(plain(f"{name}: {known}"), highlight=False)
    n_rejected = sum(report.rejected.values())
    for n, text in (
        (report.augmentations, "equivalent descriptions of training crystals beside them"),
        (report.duplicates, "duplicates dropped (--deduplicate none keeps them)"),
        (n_rejected, "rows rejected (rejected.parquet)"),
    ):
        if n:
            console.print(f"{n:,} {text}", highlight=False)
    for reason, n in list(report.reasons.items())[:N_REASONS]:
        console.print(plain(f"  {n:,}  {reason}"), highlight=False)
    if report.unreadable_known:
        n = report.unreadable_known
        console.print(f"{n:,} excluded entries could not be read: only their ids count", highlight=False)
    console.print(f"report: {folder / 'report.html'}", highlight=False)


def prompts(
    path: Positional = None,
    /,
    *,
    options: Flat[PromptOptions] = PromptOptions.defaults(),
    execution: Flat[WorkerOptions] = WorkerOptions.defaults(),
    output: Flat[OutputOptions] = OutputOptions.defaults(),
) -> None:
    """Write the prompts of known crystals to a file: cell composition, and space group on request.

    crystallm prompts data/ --split test --with-group --out test.csv

    crystallm generate --requests test.csv --out out/test
    """
    from crystallm.datasets import prompts as known_prompts

    options = with_argument(options, "path", path)
    if options.path is None:
        raise InputError("no crystals: see crystallm prompts --help")
    if options.out is None:
        raise InputError("--out is missing: name a CSV file for the prompts")
    read = known_prompts.read(
        options,
        workers=execution.workers or os.cpu_count() or 1,
        progress=progress_bars(shown=output.progress),
    )
    n, skipped = known_prompts.write(read, options.out)
    if output.as_json:
        print_json([{"prompts": n, "skipped": {prompt.id: prompt.problem for prompt in skipped}}])
    elif not output.quiet:
        console = page()
        console.print(f"{n:,} prompts in {options.out}", highlight=False)
        for prompt in skipped[:N_SKIPPED]:
            console.print(plain(f"  {prompt.id}: {prompt.problem}"), highlight=False)
        if len(skipped) > N_SKIPPED:
            console.print(f"  and {len(skipped) - N_SKIPPED:,} more without a prompt", highlight=False)
