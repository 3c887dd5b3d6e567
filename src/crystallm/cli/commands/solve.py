"""`crystallm solve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from crystallm.cli.console import print_json, progress_bars
from crystallm.cli.option_groups import Flat, OutputOptions, Positional, with_argument
from crystallm.diffraction.options import PatternOptions, SolveOptions, SolveReferenceOptions
from crystallm.execution.place import WorkerOptions
from crystallm.generation.request import PlainSamplingOptions
from crystallm.pipelines.options import OutOptions

if TYPE_CHECKING:
    from crystallm.diffraction.solution.report import SolveResult

SHOWN_PEAKS = 8
"""Unexplained peaks that are printed, at most."""


def solve(
    pattern: Positional = None,
    /,
    *,
    measured: Flat[PatternOptions] = PatternOptions.defaults(),
    options: Flat[SolveOptions] = SolveOptions.defaults(),
    sampling: Flat[PlainSamplingOptions] = PlainSamplingOptions.defaults(),
    known: Flat[SolveReferenceOptions] = SolveReferenceOptions.defaults(),
    workers: Flat[WorkerOptions] = WorkerOptions.defaults(),
    out: Flat[OutOptions] = OutOptions.defaults(),
    output: Flat[OutputOptions] = OutputOptions.defaults(),
) -> None:
    """Find the crystal of a measured powder pattern.

    crystallm solve pattern.xy --formula TiO2 --out out/

    crystallm solve pattern.xrdml --formula Fe2O3,Fe3O4,FeO

    crystallm solve pattern.xy --formula LiFePO4 --phase Li3PO4.cif Fe2P.cif

    PATTERN is a file: .xy, .xye, .csv, .dat, .xrdml or .cif (pdCIF). Candidates of the formula come from
    known crystals and from a network; the cell of each, zero shift and peak widths are refined against the
    pattern, then coordinates. --out has a CIF, a chart and the curves of each answer, answers.csv and
    solution.json.
    """
    from crystallm.diffraction.solution import report

    path = None if pattern is None else Path(pattern)
    result = report.run(
        with_argument(measured, "pattern", path),
        options,
        sampling,
        known,
        out.out,
        workers=workers.workers,
        progress=progress_bars(shown=output.progress),
    )
    if output.as_json:
        print_json([result.summary, *result.rows])
    elif not output.quiet:
        print_solution(result, out.out)


def print_solution(result: SolveResult, out: Path | None) -> None:
    """Print the answers as a table, with what the best one leaves unexplained."""
    from crystallm.cli.console import counted, page, plain, print_table

    summary = result.summary
    heads = ("answer", "formula", "space group", "cell (Å, degrees)", "Rwp %", "S", "unexplained %", "like")
    lines = [
        (
            str(row["rank"]),
            row["formula"],
            f"{row['space_group']} ({row['space_group_number']})",
            cell_text(row),
            f"{100 * row['rwp']:.1f}",
            f"{row['similarity']:.3f}",
            f"{100 * row['share_unexplained']:.0f}",
            row["relative_formula"] or "",
        )
        for row in result.rows
    ]
    title = f"{summary['pattern']}, {summary['radiation']}: {summary['conclusion']}"
    print_table(heads, lines, title, left=(1, 2, 3, 7))
    console = page()
    peaks = result.rows[0]["unexplained"] if result.rows and result.rows[0]["refined"] else []
    if peaks:
        named = ", ".join(
            f"{p['two_theta']:.2f}° ({p['d']:.3f} Å, {p['height']:.0%})" for p in peaks[:SHOWN_PEAKS]
        )
        more = f" and {len(peaks) - SHOWN_PEAKS} more" if len(peaks) > SHOWN_PEAKS else ""
        console.print(plain(f"unexplained, perhaps of an impurity: {named}{more}"))
    files = (
        "no files: --out FOLDER writes them" if out is None else f"{out}/cifs, {out}/plots, {out}/answers.csv"
    )
    console.print(plain(f"{counted(summary['candidates'], 'candidate')} tried; {files}"))


def cell_text(row: dict[str, object]) -> str:
    """Return lengths, and angles that are not 90 or 120 degrees."""
    lengths = [f"{row[name]:.4f}" for name in ("a", "b", "c")]
    angles = [f"{row[name]:.2f}" for name in ("alpha", "beta", "gamma") if row[name] not in (90.0, 120.0)]
    return " ".join(lengths + angles)
