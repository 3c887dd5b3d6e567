"""`crystallm complete`: where do the missing atoms of a crystal go?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from crystallm.cli.console import print_json, progress
from crystallm.cli.option_groups import (
    BatchSize,
    ConfigFile,
    Device,
    Dtype,
    Json,
    ModelName,
    Quiet,
    Seed,
    Temperature,
    TopK,
    TopP,
    merged,
    sampling,
    tolerance,
    whole,
)
from crystallm.errors import InputError
from crystallm.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystallm.crystals.selection import SelectionOptions
    from crystallm.generation.completion import CompletionGenerator


def complete(
    path: Annotated[
        str | None, Parameter(help="File of the part that is known: a CIF, POSCAR or other single crystal.")
    ] = None,
    *,
    formula: Annotated[str | None, Parameter(help="What the whole crystal is: LiFePO4.")] = None,
    z: Annotated[
        int | None,
        Parameter(
            name=["--z", "-z"], help="Formula units in the cell (the fewest that hold all known atoms)."
        ),
    ] = None,
    keep: Annotated[
        Literal["all", "orbits"] | None,
        Parameter(help="all: cell and coordinates as they are; orbits: Wyckoff positions alone (all)."),
    ] = None,
    n: Annotated[int | None, Parameter(name=["-n", "--n"], help="Crystals (10).")] = None,
    out: Annotated[
        Path | None, Parameter(help="Folder for CIFs and results.parquet; without it, none is written.")
    ] = None,
    valid: Annotated[
        bool | None, Parameter(negative=(), help="Write on until n crystals are valid, and keep those.")
    ] = None,
    rank: Annotated[
        Literal["agreement", "likelihood", "combined"] | None,
        Parameter(help="Fold equal crystals, count them, and put the best first."),
    ] = None,
    best: Annotated[int | None, Parameter(help="Keep so many distinct crystals.")] = None,
    symprec: Annotated[float | None, Parameter(help="Tolerance of the symmetry search, Å (0.1).")] = None,
    model: ModelName = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    batch_size: BatchSize = None,
    config: ConfigFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Put the missing atoms of a crystal where a model finds them likely.

    crystallm complete FePO4.cif --formula LiFePO4 -n 20 --out out/lithiated

    The known atoms stay, and the space group is that of the known part. For a model of the language orbits.
    """
    flags = {
        "path": path, "formula": formula, "z": z, "keep": keep, "n": n, "out": out, "valid": valid,
        "rank": rank, "best": best, "symprec": symprec, "model": model, "temperature": temperature,
        "top_k": top_k, "top_p": top_p, "seed": seed, "device": device, "dtype": dtype,
        "batch_size": batch_size,
    }  # fmt: skip
    options = merged(config, flags)
    folder = None if options.get("out") is None else Path(str(options.pop("out")))
    generator, selection = _asked(options)
    rows = _written(generator, selection, folder, options, shown=not (quiet or json))
    from crystallm.crystals import table

    kept = table.kept(rows, selection)
    if json:
        print_json(kept)
    elif not quiet:
        from crystallm.cli import crystal_tables

        crystal_tables.print_crystals(kept, generator.note(0), 1, 40)
        counts = {"crystals": len(rows), "valid": sum(row["valid"] for row in rows), "kept": len(kept)}
        crystal_tables.print_summary(counts, folder)


def _asked(options: Mapping[str, Any]) -> tuple[CompletionGenerator, SelectionOptions]:
    """What the options ask for, understood and held against the model."""
    from crystallm.crystals.selection import SelectionOptions
    from crystallm.generation import completion, template
    from crystallm.models.load import load_model
    from crystallm.options import validated

    left = dict(options)
    path, wanted = left.pop("path", None), left.pop("formula", None)
    if path is None:
        raise InputError("no crystal: name the file of the part that is known")
    if wanted is None:
        raise InputError("no formula: say what the whole crystal is, such as --formula LiFePO4")
    z, keep = left.pop("z", None), left.pop("keep", "all")
    if keep not in ("all", "orbits"):
        raise InputError(f"keep = {keep!r}: write all or orbits")
    n = whole("n", left.pop("n", None), 10)
    symprec = tolerance(left.pop("symprec", None))
    selection = validated(
        SelectionOptions,
        {name: left.pop(name) for name in tuple(left) if name in SelectionOptions.model_fields},
    )
    settings = sampling(left)
    part = template.read(str(path))
    known = completion.host(part, str(wanted), z=z, keep=keep, symprec=symprec)
    loaded = load_model(settings.model, device=settings.device, dtype=settings.dtype)
    return completion.CompletionGenerator(loaded, known, n, settings, selection), selection


def _written(
    generator: CompletionGenerator,
    selection: SelectionOptions,
    place: Path | None,
    options: Mapping[str, Any],
    *,
    shown: bool,
) -> list[dict[str, Any]]:
    """The rows of all crystals; those of a finished run are read."""
    from crystallm.crystals.table import COLUMNS
    from crystallm.models.model import fingerprint
    from crystallm.pipelines import samples
    from crystallm.sources import collection
    from crystallm.storage import run_folder
    from crystallm.validity import collection as validity_collection

    folder = None
    if place is not None:
        beside = ("path", "device", "batch_size")
        question = {
            "command": "complete", "version": __version__, "weights": fingerprint(generator.model),
            "part": validity_collection.survey(collection.read(str(options["path"])), named=False)[1],
            **{name: value for name, value in options.items() if name not in beside},
        }  # fmt: skip
        folder = run_folder.RunFolder(place, question, COLUMNS, n_units=1)
        if not folder.open():
            folder.finish()
            return folder.rows()
    n = generator.plans[0].request.n
    with progress("writing crystals", n, shown=shown) as advance:
        (written,) = samples.write(generator, [0], selection, numbers=[0], named=False, progress=advance)
    rows = [dict.fromkeys(COLUMNS) | row for row in written.rows]
    if folder is not None:
        folder.write_unit(0, rows, written.cifs)
        folder.finish()
    return rows
