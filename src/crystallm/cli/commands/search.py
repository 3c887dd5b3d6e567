"""`crystallm search`."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from crystallm.cli.console import print_json
from crystallm.cli.option_groups import Flat, OutputOptions, Positional, with_argument
from crystallm.energy.options import RelativeEnergyOptions
from crystallm.execution.place import WorkerOptions
from crystallm.generation.request import CellOptions, PlainSamplingOptions
from crystallm.pipelines.options import SearchRunOptions
from crystallm.references.options import SearchReferenceOptions
from crystallm.structure_search.options import SearchOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crystallm.structure_search.results import State

TABLE_ROWS = 20
"""Crystals in the printed table, at most; the results have them all."""


def search(
    formula: Positional = None,
    /,
    *,
    cell: Flat[CellOptions] = CellOptions.defaults(),
    options: Flat[SearchOptions] = SearchOptions.defaults(),
    sampling: Flat[PlainSamplingOptions] = PlainSamplingOptions.defaults(),
    known: Flat[SearchReferenceOptions] = SearchReferenceOptions.defaults(),
    relative: Flat[RelativeEnergyOptions] = RelativeEnergyOptions.defaults(),
    run_options: Flat[SearchRunOptions] = SearchRunOptions.defaults(),
    workers: Flat[WorkerOptions] = WorkerOptions.defaults(),
    output: Flat[OutputOptions] = OutputOptions.defaults(),
) -> None:
    """Search for the crystals of lowest energy.

    crystallm search TiO2 --z 2 --simulations 200 --energy chgnet --out run/

    Needs pip install 'crystallm[energy]'. --out stores every round: the same command resumes after a kill,
    and continues under higher limits. results.parquet holds all samples, cifs/ each distinct valid crystal,
    best_by_calls.png and best_by_seconds.png the lowest energy so far. By default one worker process
    computes energies.
    """
    from crystallm.cli import crystal_tables
    from crystallm.pipelines import search as pipeline

    unit = crystal_tables.unit_of(options.objective)
    result = pipeline.run(
        with_argument(cell, "formula", formula),
        options,
        sampling,
        relative,
        run_options,
        known=known,
        workers=workers.workers or 1,
        show=lambda name: _status(name, shown=output.progress, unit=unit),
    )
    if output.as_json:
        print_json(result.rows)
    elif not output.quiet:
        crystal_tables.print_search(result.rows, result.summary, run_options.out, TABLE_ROWS)


@contextlib.contextmanager
def _status(name: str, *, shown: bool, unit: str) -> Iterator[Callable[[State], None]]:
    """Show the progress of a search as a line on standard error, if that is a terminal."""
    if not (shown and sys.stderr.isatty()):
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{name}: loading the energy model") as status:
        yield lambda state: status.update(f"{name}: {progress_line(state, unit)}")


def progress_line(state: State, unit: str = " eV/atom") -> str:
    """Describe the progress of a search in one line."""
    best = "no energy yet" if state.best is None else f"best {state.best:.4f}{unit}"
    share = f"{state.plausible / state.texts:.0%} plausible" if state.texts else "nothing sampled"
    pace = f"{state.simulations / state.seconds:.1f} simulations/s" if state.seconds else ""
    return f"{state.simulations} simulations, {state.calls} energies, {best}, {share}, {pace}"
