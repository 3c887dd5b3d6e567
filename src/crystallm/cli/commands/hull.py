"""`crystallm hull`: known crystals become the entries of a hull, by one energy model and one method."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from crystallm.cli.console import ConsoleReporter
from crystallm.cli.option_groups import ConfigFile, Device, Quiet, merged
from crystallm.errors import InputError


def hull(
    path: Annotated[
        str | None, Parameter(help="Folder or file of known crystals (see crystallm prepare --help).")
    ] = None,
    *,
    energy: Annotated[
        str | None, Parameter(help="chgnet, sevennet, or module:factory for any ASE calculator (chgnet).")
    ] = None,
    relax: Annotated[
        bool | None, Parameter(negative=(), help="Relax them first, as evaluate --relax does with others.")
    ] = None,
    steps: Annotated[
        int | None, Parameter(help="With --relax: steps for one crystal, at most (500).")
    ] = None,
    chemical_systems: Annotated[
        str | None,
        Parameter(help="Folder or file of crystals: of their chemical systems alone, and those below them."),
    ] = None,
    out: Annotated[Path | None, Parameter(help="File for the entries, .jsonl, which --hull reads.")] = None,
    device: Device = None,
    workers: Annotated[int | None, Parameter(help="Processes (one a core; on a GPU, one).")] = None,
    config: ConfigFile = None,
    quiet: Quiet = False,
) -> None:
    """Write the energies of known crystals, from which evaluate, generate, search and relax count theirs.

    crystallm hull train.csv.gz --energy chgnet --chemical-systems out/new --out hull.jsonl

    An entry for each element is made too, from its reference crystal. A killed run started again goes on.
    Crystals that are evaluated with --relax ask for entries with --relax.
    """
    flags = {
        "path": path, "energy": energy, "relax": relax, "steps": steps, "chemical_systems": chemical_systems,
        "out": out, "device": device, "workers": workers,
    }  # fmt: skip
    options = merged(config, flags)
    for name, what in (("path", "no crystals: name a folder or file"), ("out", "no file for the entries")):
        if options.get(name) is None:
            raise InputError(f"{what}: see crystallm hull --help")
    from crystallm.options import validated
    from crystallm.pipelines import hull as pipeline
    from crystallm.pipelines.options import HullOptions

    target = Path(str(options["out"]))
    values = {name: options[name] for name in HullOptions.model_fields if name in options}
    group = validated(HullOptions, values)
    place, n_workers = pipeline.energy_workers(group.energy, options.get("device", "auto"), workers)
    result = pipeline.write_hull(
        str(options["path"]), group, target, workers=n_workers, device=place,
        reporter=ConsoleReporter(shown=not quiet),
    )  # fmt: skip
    if not quiet:
        n_failed = sum(result.failures.values())
        sys.stdout.write(f"{result.n_entries:,} entries in {target}, {n_failed:,} crystals without one\n")
        for reason, n in result.failures.most_common(10):
            sys.stdout.write(f"  {n:,}  {reason}\n")
