"""`crystallm export`: crystals for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from crystallm.cli.console import print_json, progress
from crystallm.cli.option_groups import ConfigFile, Json, Quiet, merged
from crystallm.errors import InputError

SHOWN = 10
"""Crystals that could not go, by name, at most."""


def export(
    path: Annotated[
        str | None,
        Parameter(help="An --out folder, or folder or file of structures (see crystallm prepare --help)."),
    ] = None,
    *,
    to: Annotated[
        Literal["cif", "poscar", "extxyz", "ase", "csv", "pymatgen", "optimade", "genbench"] | None,
        Parameter(
            help="Format: folders of CIFs or POSCARs, or one file; genbench is LeMat-GenBench's folder."
        ),
    ] = None,
    out: Annotated[
        Path | None, Parameter(help="File or folder (named after the input, in the folder at hand).")
    ] = None,
    only_valid: Annotated[
        bool | None, Parameter(negative=(), help="Leave out crystals of a run that are not valid.")
    ] = None,
    config: ConfigFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the crystals of a run or a collection in another format.

    crystallm export out/rutile --to extxyz --out rutile.extxyz

    What is known of each crystal (energy, likelihood, verdict, model, seed) goes with it where the format has
    a place. What cannot be read is counted and named.
    """
    flags = {"path": path, "to": to, "out": out, "only_valid": only_valid}
    options = merged(config, flags)
    if options.get("path") is None:
        raise InputError("no crystals: name a run folder, an archive, a table or a CIF")
    if options.get("to") is None:
        raise InputError("no format: say --to cif, poscar, extxyz, ase, csv, pymatgen, optimade or genbench")
    from crystallm.export import collection as exporting

    with progress("writing crystals", None, shown=not (quiet or json)) as advance:
        found = exporting.export(
            str(options["path"]),
            str(options["to"]),
            None if options.get("out") is None else Path(str(options["out"])),
            only_valid=bool(options.get("only_valid", False)),
            progress=advance,
        )
    if json:
        skipped = [{"id": name, "reason": reason} for name, reason in found.skipped]
        print_json([{"path": str(found.path), "crystals": found.n, "skipped": skipped}])
    elif not quiet:
        from crystallm.cli import console

        page = console.page()
        page.print(console.plain(f"{found.n} crystals; {found.path}"), soft_wrap=True, highlight=False)
        for name, reason in found.skipped[:SHOWN]:
            page.print(console.plain(f"  {name} left out: {reason}"), soft_wrap=True, highlight=False)
        if len(found.skipped) > SHOWN:
            page.print(f"  ... and {len(found.skipped) - SHOWN} more", highlight=False)
