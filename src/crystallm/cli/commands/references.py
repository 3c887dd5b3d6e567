"""`crystallm references`: libraries of known crystals."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

from crystallm.cli.console import page, plain, print_json, progress_bars
from crystallm.cli.option_groups import Flat, OutputOptions, with_argument
from crystallm.energy.options import ChosenModelOptions
from crystallm.execution.place import ExecutionOptions
from crystallm.references.options import HypotheticalOptions, LibraryOptions, ReadingOptions


def build(
    *collections: str,
    options: Flat[LibraryOptions] = LibraryOptions.defaults(),
    execution: Flat[ExecutionOptions] = ExecutionOptions.defaults(),
    output: Flat[OutputOptions] = OutputOptions.defaults(),
) -> None:
    """Make a library of known crystals from collections, for --references.

    crystallm references build my_cifs/ train.csv.gz --out library.parquet

    crystallm generate LaCrO3 --from references --references library.parquet

    Reads what crystallm prepare reads. A killed run started again does only what is missing.
    """
    from crystallm.execution.place import open_cluster
    from crystallm.references import build as building

    options = with_argument(options, "collections", collections or None)
    n_workers, progress = execution.workers or os.cpu_count() or 1, progress_bars(shown=output.progress)
    with open_cluster(execution.cluster) as executor:
        report = building.build(options, workers=n_workers, executor=executor, progress=progress)
    if output.as_json:
        print_json([asdict(report)])
    elif not output.quiet:
        rejected = sum(report.rejected.values())
        text = f"{options.library}: {report.crystals:,} crystals of {report.read:,} rows"
        text += f", {report.duplicates:,} equal to others, {rejected:,} rejected"
        reasons = ", ".join(f"{step} {n:,}" for step, n in report.rejected.items())
        page().print(plain(text + (f" ({reasons})" if reasons else "")), soft_wrap=True, highlight=False)


def energies(
    library: Path,
    options: Flat[ChosenModelOptions] = ChosenModelOptions.defaults(),
    execution: Flat[ExecutionOptions] = ExecutionOptions.defaults(),
    output: Flat[OutputOptions] = OutputOptions.defaults(),
) -> None:
    """Compute energies for a library, so that the most stable known crystal of a formula comes first.

    crystallm references energies library.parquet

    Computes crystals of at most 20 atoms that share their formula with others, and writes the energies into
    the file. A killed run started again does only what is missing.
    """
    from crystallm.execution.place import open_cluster
    from crystallm.references import energies as computing

    n_workers, progress = execution.workers or os.cpu_count() or 1, progress_bars(shown=output.progress)
    with open_cluster(execution.cluster) as executor:
        report = computing.compute(
            library, options.energy, workers=n_workers, executor=executor, progress=progress
        )
    if output.as_json:
        print_json([report._asdict()])
    elif not output.quiet:
        text = f"{library}: {report.with_energy:,} of {report.crystals:,} crystals have an energy"
        text += f", {report.computed:,} computed now, {report.failed:,} failed"
        page().print(plain(text), soft_wrap=True, highlight=False)


def relatives(
    dataset: Path,
    options: Flat[ReadingOptions] = ReadingOptions.defaults(),
    execution: Flat[ExecutionOptions] = ExecutionOptions.defaults(),
    output: Flat[OutputOptions] = OutputOptions.defaults(),
) -> None:
    """Add known relatives to the crystals of a data set, for a network that reads them.

    crystallm prepare train.csv.gz=train val.csv.gz=val --out data

    crystallm references relatives data

    crystallm train --init-from default --dataset data --relatives-share 0.9 --out run

    Crystals of the same formula are left out. A killed run started again does only what is missing.
    """
    from crystallm.execution.place import open_cluster
    from crystallm.references.reading import dataset as reading

    n_workers, progress = execution.workers or os.cpu_count() or 1, progress_bars(shown=output.progress)
    with open_cluster(execution.cluster) as executor:
        report = reading.add_relatives(
            dataset,
            options.references,
            options.per_crystal,
            workers=n_workers,
            executor=executor,
            progress=progress,
        )
    if output.as_json:
        print_json([report._asdict()])
    elif not output.quiet:
        text = f"{dataset}: relatives of {report.crystals:,} crystals, {report.without:,} have none"
        page().print(plain(text), soft_wrap=True, highlight=False)


def hypothetical(
    dataset: Path,
    options: Flat[HypotheticalOptions] = HypotheticalOptions.defaults(),
    execution: Flat[ExecutionOptions] = ExecutionOptions.defaults(),
    output: Flat[OutputOptions] = OutputOptions.defaults(),
) -> None:
    """Make hypothetical crystals from known ones, for a network to learn which replacements are probable.

    crystallm references hypothetical data --exclude mp_20/test.csv.gz --out hypothetical

    crystallm train --dataset data --replay-dataset hypothetical --replay-share 0.5 --out run

    Takes formulas of the data set, exchanges one or two elements for similar ones, and makes the crystals
    that known relatives find most probable. Formulas of known crystals, of the splits val and test, and of
    excluded collections are left out. A killed run started again does only what is missing.
    """
    from crystallm.execution.place import open_cluster
    from crystallm.references.reading.hypothetical import write_hypothetical

    n_workers, progress = execution.workers or os.cpu_count() or 1, progress_bars(shown=output.progress)
    with open_cluster(execution.cluster) as executor:
        report = write_hypothetical(dataset, options, workers=n_workers, executor=executor, progress=progress)
    if output.as_json:
        print_json([report._asdict()])
    elif not output.quiet:
        text = f"{options.out}: {report.crystals:,} crystals, {report.tokens:,} tokens"
        text += f"; {report.without:,} of {report.formulas:,} formulas have no probable crystal"
        page().print(plain(text), soft_wrap=True, highlight=False)
