"""`crystallm relax`, `hull` and `energy-server`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from crystallm.cli.console import counted, new_table, page, plain, print_json, progress_bars
from crystallm.cli.option_groups import Flat, OutputOptions, Positional, QuietOptions, with_argument
from crystallm.energy.options import RelaxOptions, ServerOptions
from crystallm.execution.place import DeviceOptions, WorkerOptions
from crystallm.pipelines.options import HullOptions, RelaxCollectionOptions

TABLE_ROWS = 40
"""Maximum number of crystals in the printed table; the results have them all."""


def relax(
    path: Positional = None,
    /,
    *,
    options: Flat[RelaxCollectionOptions] = RelaxCollectionOptions.defaults(),
    relaxation: Flat[RelaxOptions] = RelaxOptions.defaults(),
    execution: Flat[WorkerOptions] = WorkerOptions.defaults(),
    device: Flat[DeviceOptions] = DeviceOptions.defaults(),
    output: Flat[OutputOptions] = OutputOptions.defaults(),
) -> None:
    """Relax crystals, cell and atoms, with an energy model.

    crystallm relax out/rutile --energy chgnet --out out/relaxed

    Needs pip install 'crystallm[energy]'. With --out, results.parquet has a row per crystal, energies in eV
    per atom, and a killed run started again resumes. Crystals that cannot be relaxed have the reason. With
    --best, results.parquet still has all crystals, with their ranks.
    """
    from crystallm.pipelines import relax as pipeline

    options = with_argument(options, "path", path)
    rows = pipeline.run(
        options,
        relaxation,
        execution.workers,
        device.device,
        progress=progress_bars(shown=output.progress),
    )
    selected = rows if options.best is None else pipeline.best_rows(rows, options.best)
    if output.as_json:
        print_json({name: value for name, value in row.items() if name != "cif"} for row in selected)
    elif not output.quiet:
        where = (
            "not saved: --out FOLDER saves them" if options.out is None else f"{options.out}/results.parquet"
        )
        print_relaxed(selected, len(rows), where)


_RELATIVE = {"formation_energy": "formation", "e_above_hull": "above hull"}
"""Heads of columns of energies, eV/atom, that are shown where a row has them."""


def print_relaxed(rows: Sequence[Mapping[str, Any]], n_all: int, where: str) -> None:
    """Print relaxed crystals."""
    table = new_table()
    for name in ("crystal", "formula", "space group"):
        table.add_column(name, overflow="fold")
    relative = [name for name in _RELATIVE if any(row.get(name) is not None for row in rows)]
    for name in ("eV/atom", *(_RELATIVE[name] for name in relative), "Å³/atom", "steps"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("relaxed, or why not", overflow="fold", min_width=12)
    for row in rows[:TABLE_ROWS]:
        table.add_row(*_relaxed_cells(row, relative))
    console = page()
    console.print(table)
    if len(rows) > TABLE_ROWS:
        console.print(f"... and {len(rows) - TABLE_ROWS} more")
    n_relaxed, n_converged = (sum(bool(row[name]) for row in rows) for name in ("file", "converged"))
    summary = f"{n_converged} relaxed, {n_relaxed - n_converged} not to the end"
    if n_all > len(rows):
        summary = f"{len(rows)} kept, of these {summary}"
    console.print(plain(f"{counted(n_all, 'crystal')}, {summary}; {where}"), soft_wrap=True, highlight=False)


def _relaxed_cells(row: Mapping[str, Any], relative: Sequence[str]) -> list[str]:
    if row["energy"] is None:
        reason = row["reason"] if len(row["reason"]) <= 90 else f"{row['reason'][:87]}..."
        return [plain(row["id"]), *["-"] * (5 + len(relative)), plain(reason)]
    size = row.get("cluster_size") or 1
    groups = dict.fromkeys(row[name] or "-" for name in ("space_group_before", "space_group"))
    return [
        plain(row["id"]) if size == 1 else f"{plain(row['id'])} ×{size}",
        row["formula"],
        " → ".join(groups),
        f"{row['energy_before']:.3f} → {row['energy']:.3f}",
        *("-" if row[name] is None else f"{row[name]:.3f}" for name in relative),
        f"{row['volume_per_atom_before']:.2f} → {row['volume_per_atom']:.2f}",
        str(row["steps"]),
        "[green]relaxed[/green]" if row["converged"] else f"{row['fmax']:.2f} eV/Å are left",
    ]


def hull(
    path: Positional = None,
    /,
    *,
    options: Flat[HullOptions] = HullOptions.defaults(),
    execution: Flat[WorkerOptions] = WorkerOptions.defaults(),
    device: Flat[DeviceOptions] = DeviceOptions.defaults(),
    output: Flat[QuietOptions] = QuietOptions.defaults(),
) -> None:
    """Compute the energies of known crystals: the hull of evaluate, generate, search and relax.

    crystallm hull train.csv.gz --energy chgnet --chemical-systems out/new --out hull.jsonl

    Each element gets an entry too, from its reference crystal. A killed run started again resumes. Use
    entries made with --relax for crystals that are evaluated with --relax.
    """
    from crystallm.pipelines import hull as pipeline

    options = with_argument(options, "path", path)
    result = pipeline.run(
        options, execution.workers, device.device, progress=progress_bars(shown=not output.quiet)
    )
    if not output.quiet:
        n_failed = sum(result.failures.values())
        sys.stdout.write(
            f"{result.n_entries:,} entries in {options.out}, {n_failed:,} crystals without one\n"
        )
        for reason, n in result.failures.most_common(10):
            sys.stdout.write(f"  {n:,}  {reason}\n")


def energy_server(
    *,
    options: Flat[ServerOptions] = ServerOptions.defaults(),
    device: Flat[DeviceOptions] = DeviceOptions.defaults(),
    output: Flat[QuietOptions] = QuietOptions.defaults(),
) -> None:
    """Answer CIFs with energies (eV per atom, nan for none) over ZeroMQ, until it is stopped.

    crystallm energy-server --energy chgnet

    Other commands use it with `--energy tcp://127.0.0.1:5555`. Needs pip install 'crystallm[zmq]'.
    """
    from crystallm.energy import zmq_server
    from crystallm.execution.devices import resolve_device

    def ready(address: str) -> None:
        if not output.quiet:
            sys.stderr.write(f"{options.energy} answers at {address}\n")

    zmq_server.serve(
        options.energy,
        options.address,
        device=str(resolve_device(device.device)),
        seconds=options.timeout,
        ready=ready,
    )
