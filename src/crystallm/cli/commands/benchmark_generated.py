"""`crystallm benchmark unconditional` and `novelty`: scores of crystals written without a prompt."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from crystallm.cli.console import print_json, progress, without_nan
from crystallm.cli.option_groups import ConfigFile, Json, Quiet, merged
from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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
    generated: Annotated[
        str | None,
        Parameter(help="Folder or file of structures (see crystallm prepare --help); also an --out folder."),
    ] = None,
    *,
    truth: Annotated[
        str | None, Parameter(help="The test set: perov_5, carbon_24, mp_20, or likewise a folder or file.")
    ] = None,
    cutoffs: Annotated[
        Literal["perov_5", "carbon_24", "mp_20"] | None,
        Parameter(help="Whose cut-offs coverage has (those of the test set, if it is named)."),
    ] = None,
    data_dir: Annotated[
        Path | None, Parameter(help="Folder that holds perov_5/test.csv.gz and so on (CRYSTALLM_DATA).")
    ] = None,
    n: Annotated[
        int | None,
        Parameter(name=["-n", "--n"], help="Valid crystals drawn for the Wasserstein distances (1000)."),
    ] = None,
    seed: Annotated[int | None, Parameter(help="Of the draw (0).")] = None,
    workers: Annotated[int | None, Parameter(help="Processes (one a core).")] = None,
    out: Annotated[Path | None, Parameter(help="JSON file for the scores and the reasons.")] = None,
    config: ConfigFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Validity, coverage and property distances of generated crystals, as CDVAE and the CrystaLLM paper.

    crystallm benchmark unconditional out/perov --truth perov_5

    Validities are over all crystals, unreadable ones among them. Coverage precision is given over the
    readable ones, as in the paper, and over all. Fingerprints take some 0.2 s a crystal.
    """
    flags = {
        "generated": generated, "truth": truth, "cutoffs": cutoffs, "data_dir": data_dir, "n": n,
        "seed": seed, "workers": workers, "out": out,
    }  # fmt: skip
    options = merged(config, flags)
    for name, what in (("generated", "no crystals"), ("truth", "no test set")):
        if options.get(name) is None:
            raise InputError(f"{what}: name a folder, an archive or a table with {name.upper()}, see --help")
    from crystallm.benchmarks import unconditional as benchmark
    from crystallm.benchmarks.reference_sets import SETS, find_set
    from crystallm.sources import collection
    from crystallm.storage import files as storage_files

    place = named = str(options["truth"])
    if named in SETS and not Path(named).exists():
        place = str(find_set(named, None, options.get("data_dir")))
    whose = options.get("cutoffs", named)
    if whose not in benchmark.CUT_OFFS:
        raise InputError(f"cutoffs = {whose!r}: write one of {', '.join(benchmark.CUT_OFFS)} with --cutoffs")
    target = _target(options.get("out"), (".json",))
    entries, truths = list(collection.read_cifs(str(options["generated"]))), list(collection.read_cifs(place))
    shown = not (quiet or json)
    with progress("describing crystals", len(entries) + len(truths), shown=shown) as advance:
        result = benchmark.evaluate(
            [entry.text for entry in entries],
            [entry.text for entry in truths],
            benchmark.CUT_OFFS[whose],
            n=int(options.get("n", 1000)),
            seed=int(options.get("seed", 0)),
            workers=_workers(options),
            on_done=_counted(advance),
        )
    record = _unconditional_record(result, whose)
    if target is not None:
        reasons = {e.id: e.problem or why for e, why in zip(entries, result.reasons, strict=True)}
        storage_files.write_json(target, record | {"reasons": {k: why for k, why in reasons.items() if why}})
    if json:
        print_json([record])
    elif not quiet:
        _print_unconditional(Path(str(options["generated"])).name, named, result)


def novelty(
    generated: Annotated[
        str | None,
        Parameter(help="Folder or file of structures (see crystallm prepare --help); also an --out folder."),
    ] = None,
    *,
    known: Annotated[
        list[str] | None,
        Parameter(
            negative=(),
            consume_multiple=True,
            help="Folders or files of known crystals, of any kind that prepare takes.",
        ),
    ] = None,
    hull: Annotated[
        Path | None, Parameter(help="CSV with columns id, e_above_hull (eV/atom) of the generated crystals.")
    ] = None,
    workers: Annotated[int | None, Parameter(help="Processes (one a core).")] = None,
    out: Annotated[
        Path | None,
        Parameter(help="JSON file for rates and verdicts, or Parquet file with a row a crystal."),
    ] = None,
    config: ConfigFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """How many crystals are valid, unique, and novel against known ones; with energies, S.U.N.

    crystallm benchmark novelty out/sampled --known train.csv.gz corpus.parquet --out out/novelty.parquet

    Equal is what pymatgen's StructureMatcher (ltol 0.2, stol 0.3, angle_tol 5) says of two crystals of one
    formula. The known files are streamed: they may hold millions of rows.
    """
    flags = {
        "generated": generated, "known": known, "hull": hull, "workers": workers, "out": out,
    }  # fmt: skip
    options = merged(config, flags)
    if options.get("generated") is None:
        raise InputError("no crystals: name a folder, an archive, a table or a CIF")
    given = options.get("known") or ()
    files = [given] if isinstance(given, str) else [str(path) for path in given]
    if not files:
        raise InputError("nothing is known: name files or folders of crystals with --known")
    from crystallm.benchmarks import novelty as benchmark
    from crystallm.sources import collection
    from crystallm.storage import files as storage_files
    from crystallm.storage import tables as storage_tables

    target = _target(options.get("out"), (".json", ".parquet"))
    for path in files:  # a wrong last file is told before hours of work on the first
        if next(collection.read(path), None) is None:
            raise InputError(f"{path!r} holds no row")
    entries = list(collection.read_cifs(str(options["generated"])))
    energies = None
    if options.get("hull") is not None:
        energies = read_hull(Path(str(options["hull"])), [entry.id for entry in entries])
    with progress("crystals", None, shown=not (quiet or json)) as advance:
        result = benchmark.evaluate(
            [entry.text for entry in entries],
            benchmark.read_known(files),
            e_above_hull=energies,
            workers=_workers(options),
            on_done=lambda _stage, done, _total: advance(done),
        )
    rows = _rows(entries, result)
    record = _novelty_record(result)
    if target is not None and target.suffix.lower() == ".json":
        storage_files.write_json(target, record | {"crystals": rows})
    elif target is not None:
        storage_files.write_atomically(target, storage_tables.as_parquet(rows, COLUMNS))
    if json:
        print_json([record])
    elif not quiet:
        _print_novelty(Path(str(options["generated"])).name, result, with_energies=energies is not None)


def read_hull(path: Path, ids: Sequence[str]) -> list[float | None]:
    """Energies above the hull, eV/atom, of a CSV with columns id (or material_id) and e_above_hull.

    Args:
        path: of the file.
        ids: of the crystals.

    Returns:
        For each id its energy; None where the file has no row for it, or an empty cell.

    Raises:
        InputError: the file cannot be read, lacks a column, holds no number, one id twice, or none of these.
    """
    import csv

    found: dict[str, float | None] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            names = reader.fieldnames or ()
            key = next((name for name in ("id", "material_id") if name in names), None)
            if key is None or "e_above_hull" not in names:
                raise InputError(f"{str(path)!r} has columns {', '.join(names)}: give it id, e_above_hull")
            for row in reader:
                cell = (row["e_above_hull"] or "").strip()
                if row[key] in found:
                    raise InputError(
                        f"{str(path)!r}, line {reader.line_num}: {row[key]!r} stands there twice"
                    )
                found[row[key]] = _energy(cell, f"{str(path)!r}, line {reader.line_num}") if cell else None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{str(path)!r} cannot be read ({error})") from error
    if not found.keys() & set(ids):
        raise InputError(f"{str(path)!r} holds none of the crystals, such as {ids[0]!r}: its id is theirs")
    return [found.get(identifier) for identifier in ids]


def _energy(cell: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: {cell!r} is no energy in eV/atom; leave the cell empty if there is none")
    return value


def _workers(options: Mapping[str, Any]) -> int:
    return int(options.get("workers") or os.cpu_count() or 1)


def _target(out: Any, endings: Sequence[str]) -> Path | None:
    """The file for the results, if there is to be one."""
    if out is None:
        return None
    path = Path(str(out))
    if path.suffix.lower() not in endings:
        raise InputError(f"out = {str(path)!r}: name a file that ends in {' or '.join(endings)}")
    if not path.parent.is_dir():
        raise InputError(f"no folder {str(path.parent)!r} for {path.name!r}: make it first")
    return path


def _counted(advance: Callable[[int], None]) -> Callable[[int], None]:
    """What counts finished crystals, whichever they are."""
    done: list[int] = []  # to append is atomic

    def count(number: int) -> None:
        done.append(number)
        advance(len(done))

    return count


def _unconditional_record(result: UnconditionalResult, whose: str) -> dict[str, Any]:
    from dataclasses import asdict

    record = asdict(result)
    del record["reasons"]
    return {"benchmark": "unconditional", "cutoffs": whose, **without_nan(record)}


def _novelty_record(result: NoveltyResult) -> dict[str, Any]:
    from dataclasses import asdict

    counts = ("n_known", "n_compared", "n_unreadable", "n_undecided")
    return {
        "benchmark": "novelty",
        **{name: getattr(result, name) for name in counts},
        "overall": without_nan(asdict(result.overall)),
        "among_valid": without_nan(asdict(result.among_valid)),
    }


def _rows(entries: Sequence[Entry], result: NoveltyResult) -> list[dict[str, Any]]:
    """A row a crystal."""
    return [
        {
            "id": entry.id,
            "valid": verdict.valid,
            "unique": verdict.unique,
            "novel": verdict.novel,
            "repeats": None if verdict.repeats is None else entries[verdict.repeats].id,
            "known": verdict.known,
            "e_above_hull": verdict.e_above_hull,
            "reason": entry.problem or verdict.reason,
        }
        for entry, verdict in zip(entries, result.crystals, strict=True)
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
    _print_table(f"{name} against {truth}", ("score", "value"), lines, [note])


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
    _print_table(f"{name}: {result.overall.n:,} crystals", columns, lines, notes)


def _print_table(
    title: str, columns: Sequence[str], lines: Sequence[Sequence[str]], notes: Sequence[str]
) -> None:
    from crystallm.cli import console as cli_console

    table = cli_console.new_table(title)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for line in lines:
        table.add_row(*line)
    console = cli_console.page()
    console.print(table)
    for note in notes:
        console.print(note, highlight=False)
