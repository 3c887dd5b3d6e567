"""`crystallm evaluate` and `crystallm score`: how valid, stable, new and likely crystals are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystallm.cli.console import counted, new_table, page, plain, print_json, print_table, progress_bars
from crystallm.cli.option_groups import Flat, OutputOptions, Positional, with_argument
from crystallm.execution.place import DeviceOptions, ExecutionOptions
from crystallm.pipelines.options import EvaluateOptions, ScoreOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crystallm.pipelines.evaluate import EvaluationResult

TABLE_ROWS = 40
"""Maximum number of crystals in the printed table; the file has them all."""


def evaluate(
    path: Positional = None,
    /,
    *,
    options: Flat[EvaluateOptions] = EvaluateOptions.defaults(),
    execution: Flat[ExecutionOptions] = ExecutionOptions.defaults(),
    device: Flat[DeviceOptions] = DeviceOptions.defaults(),
    output: Flat[OutputOptions] = OutputOptions.defaults(),
) -> None:
    """Check crystals: cell, formulas, multiplicities, space group, bond lengths, as the CrystaLLM paper does.

    crystallm evaluate out/rutile --out out/checked

    With --out, results.parquet has a row per crystal with the reasons, and a killed run resumes when started
    again. Files that cannot be read are counted and listed.

    crystallm evaluate out/new --energy chgnet --relax --hull hull.jsonl --known train.csv.gz --out out/sun

    S.U.N.: stable (on the hull or below), unique among them, and not in the known set. M.S.U.N.: the same up
    to --metastable-threshold, which is what MatterGen calls S.U.N. The energies of the hull must come from
    the same model and method; crystallm hull makes such a file.
    """
    from crystallm.pipelines import evaluate as pipeline
    from crystallm.pipelines import evaluate_report

    options = with_argument(options, "path", path)
    result = pipeline.run(options, execution, device.device, progress=progress_bars(shown=output.progress))
    if options.out is not None:
        evaluate_report.write(result, options.out)
    if output.as_json:
        print_json([result.record()])
    elif not output.quiet:
        print_evaluation(result)


def print_evaluation(result: EvaluationResult) -> None:
    """Print the totals of an evaluation."""
    from crystallm.pipelines import evaluate_report

    summary = result.validity
    lines = [
        (evaluate_report.CHECKS[check], f"{n:,}", f"{100 * n / summary.n:.1f}")
        for check, n in summary.counts.items()
    ]
    print_table(("check", "crystals", "%"), lines, title=f"{result.name}: {counted(summary.n, 'crystal')}")
    console = page()
    if summary.as_printed < summary.counts["readable"]:
        others = summary.counts["readable"] - summary.as_printed
        console.print(f"{others:,} were printed by other programs, and symmetrized before they were checked")
    for reason, n in summary.reasons.items():
        console.print(plain(f"  {n:,}  {reason}"), highlight=False)
    if result.options.out is not None:
        console.print(plain(f"report: {result.options.out / 'report.html'}"), highlight=False)
    if result.sun is not None:
        print_table(evaluate_report.SHARE_HEADS, evaluate_report.share_lines(result.sun))
        if spreads := evaluate_report.spread_lines(result.sun):
            print_table(evaluate_report.SPREAD_HEADS, spreads)
        for note in evaluate_report.notes(result):
            console.print(plain(note), highlight=False)


def score(
    path: Positional = None,
    /,
    *,
    options: Flat[ScoreOptions] = ScoreOptions.defaults(),
    output: Flat[OutputOptions] = OutputOptions.defaults(),
) -> None:
    """Compute the log-likelihood of crystals under a model, in total and by part.

    crystallm score out/rutile --out scores.csv

    Nats (the lower, the more plausible) of composition, space group, orbits, cell and coordinates, each given
    the tokens before it, in the canonical token sequence of the crystal. A crystal without one is listed with
    the reason.
    """
    from crystallm.analysis import likelihood
    from crystallm.models.load import load_model
    from crystallm.sources import collection
    from crystallm.storage import tables

    options = with_argument(options, "path", path)
    entries = collection.read(options.collection())
    model = load_model(options.model, device=options.device, dtype=options.dtype)
    rows = []
    with progress_bars(shown=output.progress)("scoring crystals", None) as advance:
        for row in likelihood.rows(model, entries, symprec=options.symprec):
            rows.append(row)
            advance(len(rows))
    if options.out is not None:
        tables.write_table(options.out, rows, likelihood.COLUMNS)
    if output.as_json:
        print_json(rows)
    elif not output.quiet:
        print_scores(rows, str(options.out or "not saved: --out FILE saves them"))


_SHORT = {"composition": "comp.", "space_group": "group", "coordinates": "coord."}
"""Parts in the heads of the table, which is too wide otherwise."""


def print_scores(rows: Sequence[Mapping[str, Any]], where: str) -> None:
    """Print the scores of crystals, and where they are stored."""
    from crystallm.language import TOKEN_ROLES

    scored = [row for row in rows if row["nats"] is not None]
    others = [row for row in rows if row["nats"] is None]
    table = new_table("nats, in total and by part: the fewer, the more plausible")
    for name in ("crystal", "formula", "space group"):
        table.add_column(name, overflow="fold", min_width=6)
    for name in ("tokens", "nats", *(_SHORT.get(part, part) for part in TOKEN_ROLES), "perpl."):
        table.add_column(name, justify="right", no_wrap=True)
    for row in scored[:TABLE_ROWS]:
        numbers = [row["nats"], *(row[f"{part}_nats"] for part in TOKEN_ROLES)]
        table.add_row(
            plain(row["id"]),
            row["formula"],
            row["space_group"],
            str(row["n_tokens"]),
            *(f"{x:.1f}" for x in numbers),
            f"{row['perplexity']:.2f}",
        )
    console = page()
    console.print(table)
    if len(scored) > TABLE_ROWS:
        console.print(f"... and {len(scored) - TABLE_ROWS} more")
    for row in others[:TABLE_ROWS]:
        console.print(plain(f"{row['id']}: {row['reason']}"), soft_wrap=True, highlight=False)
    summary = f"{counted(len(rows), 'crystal')}, {len(scored)} scored"
    if scored:
        summary += f", {sum(row['nats'] for row in scored) / len(scored):.2f} nats a crystal"
    console.print(plain(f"{summary}; {where}"), highlight=False)
