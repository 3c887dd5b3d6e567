"""`crystallm score`: how plausible a model finds given crystals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from crystallm.cli.console import print_json, progress
from crystallm.cli.option_groups import ConfigFile, Device, Dtype, Json, ModelName, Quiet, merged, tolerance
from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


TABLE_ROWS = 40
"""Crystals in the printed table, at most; the file has them all."""

SHORT = {"composition": "comp.", "space_group": "group", "coordinates": "coord."}
"""Parts in the heads of the table, which is too wide otherwise."""


def score(
    path: Annotated[
        str | None,
        Parameter(help="Folder or file of structures (see crystallm prepare --help); also an --out folder."),
    ] = None,
    *,
    out: Annotated[Path | None, Parameter(help="File for the scores: .csv or .parquet.")] = None,
    model: ModelName = None,
    symprec: Annotated[float | None, Parameter(help="Tolerance of the symmetry search, Å (0.1).")] = None,
    device: Device = None,
    dtype: Dtype = None,
    config: ConfigFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Log-likelihood of crystals under a model, whole and by part.

    crystallm score out/rutile --out scores.csv

    Nats (the lower, the more plausible) of composition, space group, orbits, cell and coordinates, each given
    what stands before it, in the canonical text of the crystal. What has no text is named with its reason.
    """
    flags = {
        "path": path, "out": out, "model": model, "symprec": symprec, "device": device, "dtype": dtype,
    }  # fmt: skip
    options = merged(config, flags)
    if options.get("path") is None:
        raise InputError("no crystals: name a folder, an archive, a table or a CIF")
    place = None if options.get("out") is None else Path(str(options["out"]))
    if place is not None and place.suffix.lower() not in (".csv", ".parquet"):
        raise InputError(f"out = {str(place)!r}: name a file that ends in .csv or .parquet")
    found = _scored(options, tolerance(options.get("symprec")), shown=not (quiet or json))
    if place is not None:
        from crystallm.analysis.likelihood import COLUMNS
        from crystallm.storage import tables as storage_tables

        storage_tables.write_table(place, found, COLUMNS)
    if json:
        print_json(found)
    elif not quiet:
        _print(found, place)


def _scored(options: Mapping[str, Any], symprec: float, *, shown: bool) -> list[dict[str, Any]]:
    from crystallm.analysis import likelihood
    from crystallm.models.load import load_model
    from crystallm.sources import collection

    entries = collection.read(str(options["path"]))
    loaded = load_model(
        str(options.get("model", "default")),
        device=str(options.get("device", "auto")),
        dtype=str(options.get("dtype", "auto")),
    )
    found = []
    with progress("scoring crystals", None, shown=shown) as advance:
        for row in likelihood.rows(loaded, entries, symprec=symprec):
            found.append(row)
            advance(len(found))
    return found


def _print(rows: Sequence[Mapping[str, Any]], place: Path | None) -> None:
    from crystallm.cli import console
    from crystallm.language import TOKEN_ROLES

    scored = [row for row in rows if row["nats"] is not None]
    others = [row for row in rows if row["nats"] is None]
    table = console.new_table("nats, whole and by part: the fewer, the more plausible")
    for name in ("crystal", "formula", "space group"):
        table.add_column(name, overflow="fold", min_width=6)
    for name in ("tokens", "nats", *(SHORT.get(part, part) for part in TOKEN_ROLES), "perpl."):
        table.add_column(name, justify="right", no_wrap=True)
    for row in scored[:TABLE_ROWS]:
        numbers = [row["nats"], *(row[f"{part}_nats"] for part in TOKEN_ROLES)]
        table.add_row(
            console.plain(row["id"]),
            row["formula"],
            row["space_group"],
            str(row["n_tokens"]),
            *(f"{x:.1f}" for x in numbers),
            f"{row['perplexity']:.2f}",
        )
    page = console.page()
    page.print(table)
    if len(scored) > TABLE_ROWS:
        page.print(f"... and {len(scored) - TABLE_ROWS} more")
    for row in others[:TABLE_ROWS]:
        page.print(console.plain(f"{row['id']}: {row['reason']}"), soft_wrap=True, highlight=False)
    mean = sum(row["nats"] for row in scored) / len(scored) if scored else 0.0
    said = f"{len(rows)} crystals, {len(scored)} scored"
    said += f", {mean:.2f} nats a crystal" if scored else ""
    page.print(console.plain(f"{said}; {place or 'not kept: --out FILE keeps them'}"), highlight=False)
