"""`crystallm relax`: crystals of any collection at the nearest minimum of an energy model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from crystallm.cli.console import ConsoleReporter, print_json
from crystallm.cli.option_groups import ConfigFile, Device, Formation, HullFile, Json, Quiet, merged
from crystallm.errors import InputError

TABLE_ROWS = 40
"""Crystals in the printed table, at most; the results have them all."""


def relax(
    path: Annotated[
        str | None,
        Parameter(help="Folder or file of structures (see crystallm prepare --help); also an --out folder."),
    ] = None,
    *,
    model: Annotated[
        str | None,
        Parameter(help="chgnet, sevennet, or module:factory for any ASE calculator (chgnet)."),
    ] = None,
    steps: Annotated[int | None, Parameter(help="Steps for one crystal, at most (200).")] = None,
    fmax: Annotated[float | None, Parameter(help="Largest force at which to stop, eV/Å (0.05).")] = None,
    keep_symmetry: Annotated[
        bool | None, Parameter(negative=(), help="Keep the space group of each crystal.")
    ] = None,
    trajectory: Annotated[
        bool | None, Parameter(negative=(), help="Keep all steps, as extended XYZ in trajectories/.")
    ] = None,
    best: Annotated[
        int | None, Parameter(help="Fold equal crystals; keep so many of each formula, lowest energy first.")
    ] = None,
    out: Annotated[
        Path | None, Parameter(help="Folder for CIFs and results.parquet; without it, none is written.")
    ] = None,
    formation_energy: Formation = None,
    hull: HullFile = None,
    workers: Annotated[
        int | None, Parameter(help="Processes, each with the model (one a core; on a GPU, one).")
    ] = None,
    timeout: Annotated[float | None, Parameter(help="Limit for one crystal (600).")] = None,
    device: Device = None,
    config: ConfigFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Relax crystals, cell and atoms, with an energy model.

    crystallm relax out/rutile --model chgnet --out out/relaxed

    Needs pip install 'crystallm[energy]'. With --out, results.parquet has a row a crystal, energies in eV per
    atom; a killed run started again goes on. Nothing stops it: what cannot be relaxed has the reason. With
    --best, results.parquet has all crystals still, with their ranks.
    """
    flags = {
        "path": path, "model": model, "steps": steps, "fmax": fmax, "keep_symmetry": keep_symmetry,
        "trajectory": trajectory, "out": out, "workers": workers, "timeout": timeout, "device": device,
        "formation_energy": formation_energy, "hull": hull, "best": best,
    }  # fmt: skip
    options = merged(config, flags)
    if options.get("path") is None:
        raise InputError("no crystals: name a folder, an archive, a table or a CIF")
    from crystallm.energy.relaxation import RelaxOptions
    from crystallm.options import validated
    from crystallm.pipelines import hull as hull_entries
    from crystallm.pipelines import relax as pipeline
    from crystallm.pipelines.options import RelaxCollectionOptions

    values = {k: str(v) if k == "hull" else v for k, v in options.items()}
    fields = RelaxCollectionOptions.model_fields
    group = validated(RelaxCollectionOptions, {name: values[name] for name in fields if name in values})
    names = RelaxOptions.model_fields
    how = validated(RelaxOptions, {name: values[name] for name in names if name in values})
    place, n_workers = hull_entries.energy_workers(group.model, options.get("device", "auto"), workers)
    folder = None if options.get("out") is None else Path(str(options["out"]))
    rows = pipeline.relax_collection(
        str(options["path"]), group, how, folder, workers=n_workers, device=place,
        reporter=ConsoleReporter(shown=not (quiet or json)),
    )  # fmt: skip
    n_rows = len(rows)
    if group.best is not None:
        rows = pipeline.best_rows(rows, group.best)
    if json:
        print_json([{name: value for name, value in row.items() if name != "cif"} for row in rows])
    elif not quiet:
        from crystallm.cli import crystal_tables

        crystal_tables.print_relaxed(rows, folder, TABLE_ROWS, n_rows=n_rows)
