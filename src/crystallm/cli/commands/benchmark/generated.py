"""`crystallm benchmark unconditional` and `novelty`: scores of generated crystals."""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystallm.benchmarks.options import NoveltyOptions, UnconditionalOptions
from crystallm.cli.console import counted, page, print_json, print_table, progress
from crystallm.cli.option_groups import Flat, OutputOptions, Positional, with_argument
from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.benchmarks.novelty import NoveltyResult, Rates
    from crystallm.benchmarks.unconditional import UnconditionalResult
    from crystallm.sources.entry import Entry

UNCONDITIONAL = {
    "composition_validity": "composition valid, %",
    "structure_validity": "structure valid, %",
    "validity": "valid, %",
    "coverage_recall": "coverage recall, %",
    "coverage_precision": "coverage precision of the readable, %",
    "coverage_precision_of_all": "coverage precision of all, %",
    "structure_distance_recall": "structure distance, recall",
    "structure_distance_precision": "structure distance, precision",
    "composition_distance_recall": "composition distance, recall",
    "composition_distance_precision": "composition distance, precision",
    "wasserstein_density": "Wasserstein distance of density, g/cm³",
    "wasserstein_elements": "Wasserstein distance of number of elements",
}
RATES = {
    "valid": "valid",
    "unique": "unique",
    "novel": "novel",
    "vun": "valid, unique, novel",
    "stable": "stable (≤ 0 eV/atom above hull)",
    "metastable": "metastable (≤ 0.1 eV/atom)",
    "sun": "stable, unique, novel",
    "msun": "metastable, unique, novel",
}
COLUMNS = {
    "id": "string", "valid": "bool", "unique": "bool", "novel": "bool", "repeats": "string",
    "known": "string", "e_above_hull": "float64", "reason": "string",
}  # fmt: skip


def unconditional(
    generated: Positional = None,
    /,
    *,
    options: Flat[UnconditionalOptions] = UnconditionalOptions.defaults(),
    output: Flat[OutputOptions] = OutputOptions.defaults(),
) -> None:
    """Validity, coverage and property distances of generated crystals, as in CDVAE and the CrystaLLM paper.

    crystallm benchmark unconditional out/perov --truth perov_5

    Validities are over all crystals, unreadable ones included. Coverage precision is given over the readable
    ones, as in the paper, and over all. Fingerprints take about 0.2 s per crystal.
    """
    from crystallm.benchmarks import unconditional as benchmark
    from crystallm.benchmarks.reference_sets import find_data
    from crystallm.sources import collection
    from crystallm.storage import files

    options = with_argument(options, "generated", generated)
    for name, problem in (("generated", "no crystals"), ("truth", "no test set")):
        if getattr(options, name) is None:
            raise InputError(
                f"{problem}: name a folder, an archive or a table with {name.upper()}, see --help"
            )
    truth = str(options.truth)
    path, _ = find_data(truth, None, options.data_dir)
    cut_offs = options.cutoffs or truth
    if cut_offs not in benchmark.CUT_OFFS:
        raise InputError(
            f"cutoffs = {cut_offs!r}: write one of {', '.join(benchmark.CUT_OFFS)} with --cutoffs"
        )
    files.check_file(options.out, ".json")
    entries = list(collection.read_cifs(str(options.generated)))
    references = list(collection.read_cifs(path))
    total = len(entries) + len(references)
    with progress("describing crystals", total, shown=output.progress) as advance:
        done = itertools.count(1)
        result = benchmark.evaluate(
            [entry.text for entry in entries],
            [entry.text for entry in references],
            benchmark.CUT_OFFS[cut_offs],
            n=options.n,
            seed=options.seed,
            workers=options.workers or os.cpu_count() or 1,
            on_done=lambda _: advance(next(done)),
        )
    record = _unconditional_record(result, cut_offs)
    if options.out is not None:
        reasons = {e.id: e.problem or reason for e, reason in zip(entries, result.reasons, strict=True)}
        given = {name: reason for name, reason in reasons.items() if reason}
        files.write_json(options.out, record | {"reasons": given})
    if output.as_json:
        print_json([record])
    elif not output.quiet:
        _print_unconditional(Path(str(options.generated)).name, truth, result)


def novelty(
    generated: Positional = None,
    /,
    *,
    options: Flat[NoveltyOptions] = NoveltyOptions.defaults(),
    output: Flat[OutputOptions] = OutputOptions.defaults(),
) -> None:
    """Shares of crystals that are valid, unique and novel against known ones; with energies, S.U.N.

    crystallm benchmark novelty out/sampled --known train.csv.gz corpus.parquet --out out/novelty.parquet

    Crystals of one formula are equal if pymatgen's StructureMatcher (ltol 0.2, stol 0.3, angle_tol 5) says
    so. The known files are streamed: they may hold millions of rows.
    """
    from crystallm.benchmarks import novelty as benchmark
    from crystallm.sources import collection
    from crystallm.storage import files

    options = with_argument(options, "generated", generated)
    if options.generated is None:
        raise InputError("no crystals: name a folder, an archive, a table or a CIF")
    if not options.known:
        raise InputError("no known crystals: name files or folders with --known")
    files.check_file(options.out, ".json", ".parquet")
    for path in options.known:  # before hours of work on the first file
        if next(collection.read(path), None) is None:
            raise InputError(f"{path!r} holds no row")
    entries = list(collection.read_cifs(options.generated))
    energies = (
        None
        if options.hull_energies is None
        else read_hull(options.hull_energies, [entry.id for entry in entries])
    )
    with progress("crystals", None, shown=output.progress) as advance:
        result = benchmark.evaluate(
            [entry.text for entry in entries],
            benchmark.read_known(options.known),
            e_above_hull=energies,
            workers=options.workers or os.cpu_count() or 1,
            on_done=lambda _stage, done, _total: advance(done),
        )
    record = _novelty_record(result)
    _write_novelty(options.out, record, _rows(entries, result))
    if output.as_json:
        print_json([record])
    elif not output.quiet:
        _print_novelty(Path(options.generated).name, result, with_energies=energies is not None)


def _write_novelty(path: Path | None, record: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write rates and rows as JSON, or the rows as Parquet."""
    from crystallm.storage import files, tables

    if path is None:
        return
    if path.suffix.lower() == ".json":
        files.write_json(path, record | {"crystals": rows})
    else:
        files.write_atomically(path, tables.as_parquet(rows, COLUMNS))


def read_hull(path: Path, ids: Sequence[str]) -> list[float | None]:
    """Read energies above the hull, eV/atom, from a CSV with columns id (or material_id) and e_above_hull.

    Returns:
        Energy of each crystal; None if the file has no row for it, or an empty cell.

    Raises:
        InputError: the file cannot be read, lacks a column, has an invalid number, a duplicate id, or no row
            of these crystals.
    """
    import csv

    energies: dict[str, float | None] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            names = reader.fieldnames or ()
            key = next((name for name in ("id", "material_id") if name in names), None)
            if key is None or "e_above_hull" not in names:
                raise InputError(f"{str(path)!r} has columns {', '.join(names)}: give it id, e_above_hull")
            for row in reader:
                cell = (row["e_above_hull"] or "").strip()
                if row[key] in energies:
                    raise InputError(f"{str(path)!r}, line {reader.line_num}: {row[key]!r} occurs twice")
                energies[row[key]] = _energy(cell, f"{str(path)!r}, line {reader.line_num}") if cell else None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{str(path)!r} cannot be read ({error})") from error
    if not energies.keys() & set(ids):
        raise InputError(f"{str(path)!r} holds none of the crystals, such as {ids[0]!r}: use their ids")
    return [energies.get(identifier) for identifier in ids]


def _energy(cell: str, location: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{location}: {cell!r} is not an energy in eV/atom; leave the cell empty for none")
    return value


def _unconditional_record(result: UnconditionalResult, cut_offs: str) -> dict[str, Any]:
    from crystallm.storage.files import without_nan

    record = asdict(result)
    del record["reasons"]
    return {"benchmark": "unconditional", "cutoffs": cut_offs, **without_nan(record)}


def _novelty_record(result: NoveltyResult) -> dict[str, Any]:
    from crystallm.storage.files import without_nan

    counts = ("n_known", "n_compared", "n_unreadable", "n_undecided")
    return {
        "benchmark": "novelty",
        **{name: getattr(result, name) for name in counts},
        "overall": without_nan(asdict(result.overall)),
        "among_valid": without_nan(asdict(result.among_valid)),
    }


def _rows(entries: Sequence[Entry], result: NoveltyResult) -> list[dict[str, Any]]:
    """Return a row per crystal."""
    return [
        {
            "id": entry.id,
            "valid": check.valid,
            "unique": check.unique,
            "novel": check.novel,
            "repeats": None if check.repeats is None else entries[check.repeats].id,
            "known": check.known,
            "e_above_hull": check.e_above_hull,
            "reason": entry.problem or check.reason,
        }
        for entry, check in zip(entries, result.crystals, strict=True)
    ]


def _print_unconditional(name: str, truth: str, result: UnconditionalResult) -> None:
    lines = []
    for attribute, what in UNCONDITIONAL.items():
        value = getattr(result, attribute)
        number = f"{100 * value:.2f}" if what.endswith("%") else f"{value:.4f}"
        lines.append((what, "-" if math.isnan(value) else number))
    note = (
        f"{result.n_readable:,} of {result.n_generated:,} generated and {result.n_true_readable:,} of "
        f"{result.n_true:,} true crystals have fingerprints; {result.n_drawn:,} valid ones were drawn"
    )
    print_table(("score", "value"), lines, f"{name} against {truth}")
    page().print(note, highlight=False)


def _print_novelty(name: str, result: NoveltyResult, *, with_energies: bool) -> None:
    def percent(rates: Rates, attribute: str) -> str:
        value = getattr(rates, attribute)
        return "-" if math.isnan(value) else f"{100 * value:.2f}"

    shown = list(RATES) if with_energies else list(RATES)[:4]
    lines = [(RATES[x], percent(result.overall, x), percent(result.among_valid, x)) for x in shown]
    notes = [f"{result.n_known:,} known crystals, {result.n_compared:,} of them of a generated formula"]
    if result.n_unreadable:
        notes.append(f"{result.n_unreadable:,} known crystals could not be read or compared")
    if result.n_undecided:
        notes.append(f"{result.n_undecided:,} crystals could not be compared: neither unique nor novel")
    columns = ("crystals", "% of all", "% of the valid")
    print_table(columns, lines, f"{name}: {counted(result.overall.n, 'crystal')}")
    for note in notes:
        page().print(note, highlight=False)
