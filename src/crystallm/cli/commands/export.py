"""`crystallm export`: crystals for other programs."""

from __future__ import annotations

from crystallm.cli.console import counted, page, plain, print_json, progress_bars
from crystallm.cli.option_groups import Flat, OutputOptions, Positional, with_argument
from crystallm.errors import InputError
from crystallm.export.options import ExportOptions

N_LISTED = 10
"""Maximum number of crystals left out, and of notes, that are listed."""


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
    allows. Crystals that cannot be read are counted and listed, and so are notes on how others were read.
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
        notes = [{"id": name, "note": note} for name, note in exported.notes]
        print_json([{"path": str(exported.path), "crystals": exported.n, "skipped": skipped, "notes": notes}])
    elif not output.quiet:
        console = page()
        console.print(
            plain(f"{counted(exported.n, 'crystal')}; {exported.path}"), soft_wrap=True, highlight=False
        )
        lines = [f"{name} left out: {reason}" for name, reason in exported.skipped]
        for some in (lines, [f"{name}: {note}" for name, note in exported.notes]):
            for line in some[:N_LISTED]:
                console.print(plain(f"  {line}"), soft_wrap=True, highlight=False)
            if len(some) > N_LISTED:
                console.print(f"  ... and {len(some) - N_LISTED} more", highlight=False)
