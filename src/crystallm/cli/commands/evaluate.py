"""`crystallm evaluate`: are these crystals sound? For our own results and for any other tool's."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from crystallm.cli.commands import stability
from crystallm.cli.console import print_json, progress
from crystallm.cli.option_groups import Cluster, ConfigFile, Device, HullFile, Json, Quiet, executor, merged
from crystallm.errors import InputError
from crystallm.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from crystallm.validity.collection import Summary


NAMES = {
    "readable": "a CIF can be read",
    "sensible": "sensible cell",
    "formula": "formulas agree",
    "multiplicity": "multiplicities add up",
    "space_group": "printed group is found",
    "bonds": "all bonds reasonable",
    "valid": "valid: all of these",
}


def evaluate(
    path: Annotated[
        str | None,
        Parameter(help="Folder or file of structures (see crystallm prepare --help); also an --out folder."),
    ] = None,
    *,
    out: Annotated[
        Path | None, Parameter(help="Folder for report.html, summary.json and results.parquet.")
    ] = None,
    judge: Annotated[
        Literal["auto", "text", "crystal"] | None,
        Parameter(
            help="text: what is printed, as the paper; crystal: symmetrised first, for CIFs in any setting; "
            "auto: the text if it is a standard one, else the crystal (auto)."
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
    stable_below: Annotated[
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
    to --stable-below, which is what MatterGen calls S.U.N. The hull's energies must be of the same model and
    method; crystallm hull makes such a file.
    """
    flags = {
        "path": path, "out": out, "judge": judge, "workers": workers, "cluster": cluster, "energy": energy,
        "relax": relax, "steps": steps, "hull": hull, "stable_below": stable_below, "known": known,
        "device": device,
    }  # fmt: skip
    options = merged(config, flags)
    if options.get("path") is None:
        raise InputError("no crystals: name a folder, an archive, a table or a CIF")
    what = options.get("judge", "auto")
    if what not in ("auto", "text", "crystal"):
        raise InputError(f"judge = {what!r}: write auto, text or crystal")
    n_workers = int(options.get("workers") or os.cpu_count() or 1)
    more = stability.understood(options, n_workers)
    folder = None if options.get("out") is None else Path(str(options["out"]))
    place = {"cluster": options.get("cluster")}
    shown = not (quiet or json)
    rows, counts = _judged(str(options["path"]), what, more, folder, place, workers=n_workers, shown=shown)
    from crystallm.validity import collection as validity_collection

    summary = validity_collection.summarise(rows)
    told = stability.told(rows, more, counts) if more.anything else None
    record = summary.record() | ({} if told is None else {"sun": told.record()})
    if folder is not None:
        _write(folder, _report(Path(str(options["path"])).name, summary, rows, told), record)
    if json:
        print_json([record])
    elif not quiet:
        from crystallm.cli import crystal_tables

        crystal_tables.print_judged(Path(str(options["path"])).name, summary, NAMES, folder)
        if told is not None:
            stability.show(told)


def _judged(
    path: str,
    what: Any,
    more: stability.Asked,
    out: Path | None,
    place: Mapping[str, Any],
    *,
    workers: int,
    shown: bool,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """A row for each crystal of a collection, and counts of known ones; what is done is not done again."""
    from crystallm.sources import collection
    from crystallm.storage import run_folder
    from crystallm.validity import collection as validity_collection

    n_entries, digest = validity_collection.survey(stability.looked(collection.read_cifs(path), more))
    size = more.block or validity_collection.BLOCK
    n_blocks = -(-n_entries // size)
    folder = None
    todo = set(range(n_blocks))
    if out is not None:
        question = {"command": "evaluate", "version": __version__, "judge": what, "digest": digest}
        columns = validity_collection.COLUMNS | more.columns()
        folder = run_folder.RunFolder(out, question | more.question(), n_blocks, columns)
        todo = folder.open()
        if folder.finished:
            folder.finish()  # what a kill may have left of it
            return folder.rows(), stability.counts_of(out) if more.anything else {}
    rows: list[dict[str, Any]] = []
    done = 0
    with (
        executor(place if todo else {}) as where,
        more.keeping(),
        progress("judging crystals", n_entries, shown=shown) as advance,
    ):
        for number, block in enumerate(validity_collection.blocks(collection.read_cifs(path), size)):
            if number in todo:
                found = validity_collection.check_entries(
                    block,
                    what=what,
                    workers=workers,
                    on_done=partial(_advance, advance, done),
                    executor=where,
                )
                if more.anything:
                    found = stability.weigh(block, found, more, where)
                if folder is None:
                    rows += found
                else:
                    folder.write_unit(number, found, {})
            done += len(block)
            advance(done)
    if folder is not None and more.anything:
        rows = folder.rows()
    counts: dict[str, int] = {}
    if more.anything and rows:
        texts = (entry.text for entry in collection.read_cifs(path))
        with progress("comparing crystals", None, shown=shown) as advance:
            rows, counts = stability.compare(rows, texts, more, workers, lambda _, n, __: advance(n))
    if folder is None:
        return rows, counts
    if not more.anything:
        folder.finish()
        return folder.rows(), {}
    stability.keep_counts(folder.path, counts)
    folder.finish(rows=rows)
    return rows, counts


def _advance(advance: Callable[[int], None], before: int, done: int) -> None:
    advance(before + done)


def _write(folder: Path, report: str, record: Mapping[str, Any]) -> None:
    """Write summary and report."""
    from crystallm.storage import files

    files.write_json(folder / "summary.json", record)
    files.write_atomically(folder / "report.html", report.encode())


def _report(
    name: str,
    summary: Summary,
    rows: Sequence[Mapping[str, Any]],
    told: stability.EvaluationResult | None,
) -> str:
    from crystallm.visualization import charts
    from crystallm.visualization.html_report import HtmlReport

    report = HtmlReport(f"{name}: {summary.n:,} crystals judged")
    report.table(
        ("check", "crystals", "%"),
        [(NAMES[check], n, round(100 * n / summary.n, 2)) for check, n in summary.counts.items()],
    )
    report.paragraph(
        f"{summary.as_printed:,} were judged as their text prints them; the others, printed by other "
        "programs, were symmetrised first (0.1 Å)."
    )
    if summary.mean_bond_score is not None:
        report.paragraph(f"Mean bond score: {summary.mean_bond_score:.4f}.")
    if told is not None:
        stability.report(report, told, rows)
    if summary.reasons:
        report.heading("What is wrong")
        report.table(("reason", "crystals"), list(summary.reasons.items()))
    report.heading("How they look")

    def known(column: str, *, valid: bool | None = None) -> list[float]:
        chosen = (row for row in rows if valid is None or bool(row["valid"]) == valid)
        return [row[column] for row in chosen if row[column] is not None]

    def split(column: str) -> dict[str, list[float]]:
        return {"valid": known(column, valid=True), "not valid": known(column, valid=False)}

    lengths = [value for name in "abc" for value in known(name)]
    report.picture(charts.histogram(split("volume_per_atom"), label="volume per atom, Å³"), "Volume per atom")
    report.picture(
        charts.histogram({"all": known("bond_score")}, label="bond score", limits=(0, 1)),
        "Bond score: share of bonds of a reasonable length",
    )
    report.picture(charts.histogram({"all": lengths}, label="cell length, Å"), "Cell lengths a, b and c")
    counts: dict[str, list[int]] = {}
    for row in rows:
        for k, column in enumerate(("printed_group", "found_group")):
            if row[column] is not None:
                counts.setdefault(row[column], [0, 0])[k] += 1
    pairs = {group: (pair[0], pair[1]) for group, pair in counts.items()}
    report.picture(charts.paired_bars(pairs, labels=("printed", "found")), "Space groups printed and found")
    wrong = [row for row in rows if not row["valid"]]
    if wrong:
        report.heading(f"The first {min(50, len(wrong))} of {len(wrong):,} that are not valid")
        report.table(
            ("id", "cell", "reasons"), [(r["id"], r["cell_formula"] or "-", r["reasons"]) for r in wrong[:50]]
        )
    return report.html()
