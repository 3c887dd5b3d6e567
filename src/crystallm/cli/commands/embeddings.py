"""`crystallm embeddings`: what a model has learned of elements, numbers and space groups."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from crystallm.cli.console import print_json
from crystallm.cli.option_groups import ConfigFile, Json, Quiet, merged
from crystallm.errors import InputError

NEAREST = 3
"""Tokens named beside each in the printed table."""


def embeddings(
    model: Annotated[
        str | None, Parameter(help="Bundled or published name, folder, ckpt.pt, hf:org/name (default).")
    ] = None,
    *,
    of: Annotated[
        Literal["atoms", "digits", "space-groups"] | None, Parameter(help="Which tokens (atoms).")
    ] = None,
    out: Annotated[Path | None, Parameter(help="File for the vectors: .csv or .parquet.")] = None,
    picture: Annotated[
        Path | None, Parameter(name="--map", help="File for a map in two dimensions: .png.")
    ] = None,
    config: ConfigFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the vectors that a model has learned for elements, digits or space groups.

    crystallm embeddings default --of atoms --out atoms.csv --map atoms.png

    Printed are the nearest three of each, by the angle between their vectors.
    """
    flags = {"model": model, "of": of, "out": out, "picture": picture}
    options = merged(config, flags)
    places = {name: Path(str(options[name])) for name in ("out", "picture") if options.get(name) is not None}
    for name, endings in (("out", (".csv", ".parquet")), ("picture", (".png",))):
        if name in places and places[name].suffix.lower() not in endings:
            raise InputError(f"{str(places[name])!r}: name a file that ends in {' or '.join(endings)}")
    from crystallm.analysis import embeddings as learned
    from crystallm.models.load import load_model
    from crystallm.storage import files
    from crystallm.storage import tables as storage_tables
    from crystallm.visualization import charts

    what = str(options.get("of", "atoms"))
    names, table = learned.vectors(load_model(str(options.get("model", "default")), device="cpu"), what)
    if "out" in places:
        storage_tables.write_table(places["out"], *learned.rows(names, table))
    if "picture" in places:
        drawn = charts.named_points(
            [name.removesuffix("_sg") for name in names],
            learned.project(table),
            learned.categories(names, what),
        )
        files.write_atomically(places["picture"], drawn)
    near = learned.nearest(names, table, NEAREST)
    if json:
        print_json({"name": name, "nearest": others} for name, others in zip(names, near, strict=True))
    elif not quiet:
        from crystallm.cli import console

        page = console.page()
        for name, others in zip(names, near, strict=True):
            page.print(console.plain(f"{name:12}{'  '.join(others)}"), highlight=False)
        for place in places.values():
            page.print(console.plain(str(place)), highlight=False)
