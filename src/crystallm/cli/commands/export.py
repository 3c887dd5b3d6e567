"""`crystallm export`: crystals for other programs."""

from __future__ import annotations

from crystallm.cli.console import counted, page, plain, print_json, progress_bars
from crystallm.cli.option_groups import Flat, OutputOptions, Positional, with_argument
from crystallm.errors import InputError
from crystallm.export.options import ExportOptions

N_SKIPPED = 10
"""Maximum number of crystals left out that are listed."""


def export(
    path: Positional = None,
    /,
    *,
    options: Flat[ExportOptions] = ExportOptions.defaults(),
    output: Flat[OutputOptions] = OutputOptions.defaults(),
) -> None:
    """Export the crystals of a run or a collection in another format.

    crystallm export out/rutile --to extxyz --out rutile.extxyz

    The properties of each crystal (energy, likelihood, validity, model, seed) are exported where the format
    allows. Crystals that cannot be read are counted and listed.
    """
    from crystallm.export import collection

    options = with_argument(options, "path", path)
    if options.path is None:
        raise InputError("no crystals: name a run folder, an archive, a table or a CIF")
    if options.to is None:
        raise InputError("no format: say --to cif, poscar, extxyz, ase, csv, pymatgen, optimade or genbench")
    with progress_bars(shown=output.progress)("exporting crystals", None) as advance:
        exported = collection.export(
            options.path,
            options.to,
            options.out,
            only_valid=options.only_valid,
            everything=options.everything,
            progress=advance,
        )
    if output.as_json:
        skipped = [{"id": name, "reason": reason} for name, reason in exported.skipped]
        print_json([{"path": str(exported.path), "crystals": exported.n, "skipped": skipped}])
    elif not output.quiet:
        console = page()
        console.print(
            plain(f"{counted(exported.n, 'crystal')}; {exported.path}"), soft_wrap=True, highlight=False
        )
        for name, reason in exported.skipped[:N_SKIPPED]:
            console.print(plain(f"  {name} left out: {reason}"), soft_wrap=True, highlight=False)
        if len(exported.skipped) > N_SKIPPED:
            console.print(f"  ... and {len(exported.skipped) - N_SKIPPED} more", highlight=False)
