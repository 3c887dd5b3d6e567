"""`crystallm evaluate`: are these crystals sound? For our own results and for any other tool's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from crystallm.cli.console import ConsoleReporter, print_json
from crystallm.cli.option_groups import Cluster, ConfigFile, Device, HullFile, Json, Quiet, executor, merged
from crystallm.errors import InputError

if TYPE_CHECKING:
    from crystallm.pipelines.evaluate import EvaluationResult


def evaluate(
    path: Annotated[
        str | None,
        Parameter(help="Folder or file of structures (see crystallm prepare --help); also an --out folder."),
    ] = None,
    *,
    out: Annotated[
        Path | None, Parameter(help="Folder for report.html, summary.json and results.parquet.")
    ] = None,
    read_as: Annotated[
        Literal["auto", "text"] | None,
        Parameter(
            help="text: check what is printed, as the paper; auto: the same for a standard text, others are "
            "symmetrized first (auto)."
        ),
    ] = None,
    energy: Annotated[
        str | None,
        Parameter(help="Energies too, by chgnet, sevennet, or module:factory for any ASE calculator."),
    ] = None,
    relax: Annotated[
        bool | None,
        Parameter(negative=(), help="With --energy: relax the crystals first, and tell how far they move."),
    ] = None,
    steps: Annotated[
        int | None, Parameter(help="With --relax: steps for one crystal, at most (500).")
    ] = None,
    hull: HullFile = None,
    metastable_threshold: Annotated[
        float | None, Parameter(help="eV/atom above the hull, up to which a crystal is metastable (0.1).")
    ] = None,
    known: Annotated[
        list[str] | None,
        Parameter(
            negative=(),
            consume_multiple=True,
            help="Folders or files of known crystals: which are new? With --hull, S.U.N. too.",
        ),
    ] = None,
    device: Device = None,
    workers: Annotated[int | None, Parameter(help="Processes (one a core).")] = None,
    cluster: Cluster = None,
    config: ConfigFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Judge crystals: cell, formulas, multiplicities, space group, bond lengths, as the CrystaLLM paper does.

    crystallm evaluate out/rutile --out out/judged

    With --out, results.parquet has a row a crystal with the reasons; a killed run started again goes on.
    Nothing stops it: what cannot be read is counted and named.

    crystallm evaluate out/new --energy chgnet --relax --hull hull.jsonl --known train.csv.gz --out out/sun

    S.U.N.: stable (on the hull or below), unique among them, and not in the known set; M.S.U.N.: the same up
    to --metastable-threshold, which is what MatterGen calls S.U.N. The hull's energies must be of the same
    model and method; crystallm hull makes such a file.
    """
    flags = {
        "path": path, "out": out, "read_as": read_as, "workers": workers, "cluster": cluster,
        "energy": energy,
        "relax": relax, "steps": steps, "hull": hull, "metastable_threshold": metastable_threshold,
        "known": known,
        "device": device,
    }  # fmt: skip
    options = merged(config, flags)
    path, out = options.pop("path", None), options.pop("out", None)
    if path is None:
        raise InputError("no crystals: name a folder, an archive, a table or a CIF")
    n_workers, where, hosts = (options.pop(name, None) for name in ("workers", "device", "cluster"))
    given = options.get("known", ())
    from crystallm.options import validated
    from crystallm.pipelines import evaluate as pipeline
    from crystallm.pipelines import evaluate_report
    from crystallm.pipelines import hull as hull_entries
    from crystallm.pipelines.options import EvaluationOptions
    from crystallm.storage import files

    options["known"] = (given,) if isinstance(given, str) else tuple(given)
    group = validated(EvaluationOptions, {k: str(v) if k == "hull" else v for k, v in options.items()})
    place, n_workers = "cpu", int(n_workers or os.cpu_count() or 1)
    if group.energy is not None:
        place, n_workers = hull_entries.energy_workers(group.energy, where or "auto", workers)
    folder = None if out is None else Path(str(out))
    result = pipeline.evaluate(
        str(path), group, folder, workers=n_workers, device=place, executor=executor({"cluster": hosts}),
        reporter=ConsoleReporter(shown=not (quiet or json)),
    )  # fmt: skip
    if folder is not None:
        files.write_json(folder / "summary.json", result.record())
        files.write_atomically(folder / "report.html", evaluate_report.html(result).encode())
    if json:
        print_json([result.record()])
    elif not quiet:
        _show(result, folder)


def _show(result: EvaluationResult, folder: Path | None) -> None:
    from crystallm.cli import console, crystal_tables
    from crystallm.pipelines import evaluate_report

    crystal_tables.print_judged(result.name, result.validity, evaluate_report.CHECKS, folder)
    if result.sun is None:
        return
    for heads, lines in (
        (evaluate_report.SHARE_HEADS, evaluate_report.share_lines(result.sun)),
        (evaluate_report.SPREAD_HEADS, evaluate_report.spread_lines(result.sun)),
    ):
        if lines:
            table = console.new_table()
            for i, head in enumerate(heads):
                table.add_column(head, justify="right" if i else "left")
            for line in lines:
                table.add_row(*line)
            console.page().print(table)
    for note in evaluate_report.notes(result):
        console.page().print(console.plain(note), highlight=False)
