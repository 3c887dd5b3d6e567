"""`crystallm search`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from cyclopts import Parameter

from crystallm.cli.console import print_json
from crystallm.cli.option_groups import (
    BatchSize,
    ConfigFile,
    Device,
    Dtype,
    Formation,
    HullFile,
    Json,
    ModelName,
    Quiet,
    Seed,
    Temperature,
    TopK,
    TopP,
    merged,
    whole,
)
from crystallm.errors import InputError
from crystallm.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from crystallm.crystals.crystal import Crystal
    from crystallm.generation.request import Request, SamplingOptions
    from crystallm.models.model import Model
    from crystallm.structure_search.options import SearchOptions
    from crystallm.structure_search.search import Search, SearchSample, State


LOG, SUMMARY = "search.jsonl", "search.json"

TABLE_ROWS = 20
"""Crystals in the printed table, at most; the results have them all."""


class Asked(NamedTuple):
    """What the options ask for."""

    request: Request
    options: SearchOptions
    settings: SamplingOptions
    against: SearchOptions | None
    workers: int
    out: Path | None
    formation: bool
    hull: str | None


def search(
    formula: Annotated[
        str | None, Parameter(help="What the cell holds, as people write it: TiO2, '(NH4)2SO4'.")
    ] = None,
    *,
    z: Annotated[
        int | Literal["auto"] | None,
        Parameter(
            name=["--z", "-z"],
            help="Formula units in the cell; auto: likely ones. Without it: auto for TiO2, and for Ti2O4, a "
            "multiple, the cell as written.",
        ),
    ] = None,
    space_group: Annotated[
        str | None, Parameter(help="Number or symbol: 136, P4_2/mnm; auto: spread over likely ones.")
    ] = None,
    simulations: Annotated[
        int | None, Parameter(help="Stop after so many (200, if nothing else bounds the search).")
    ] = None,
    energy_calls: Annotated[
        int | None, Parameter(help="Stop after so many crystals whose energy was asked.")
    ] = None,
    minutes: Annotated[float | None, Parameter(help="Stop after so long, all runs counted.")] = None,
    energy: Annotated[
        str | None,
        Parameter(
            help="Energy model: chgnet, sevennet, tcp://..., module:factory of an ASE calculator (chgnet)."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        Parameter(help="Folder for CIFs, results.parquet and plots; the same command goes on there."),
    ] = None,
    recipe: Annotated[
        Literal["ours", "paper", "paper-long"] | None,
        Parameter(help="paper: the tree search of CrystaLLM with its settings (ours)."),
    ] = None,
    method: Annotated[
        Literal["elites", "tree", "sampling"] | None,
        Parameter(help="Go on from good crystals, a tree over choices, or neither (elites)."),
    ] = None,
    rule: Annotated[
        Literal["puct", "uct", "greedy"] | None, Parameter(help="Which branch the tree follows (puct).")
    ] = None,
    width: Annotated[int | None, Parameter(help="Branches of the tree at a choice, at most (10).")] = None,
    c: Annotated[
        float | None,
        Parameter(help="Weight of what the tree has seen little of (5); greedy: rate of chance (0.1)."),
    ] = None,
    cutoff: Annotated[
        float | None, Parameter(help="A branch with more than this share is the only one (0.99).")
    ] = None,
    n_space_groups: Annotated[
        int | None, Parameter(help="Width where the tree chooses the space group (as elsewhere).")
    ] = None,
    rollouts: Annotated[int | None, Parameter(help="Texts written in one simulation (1).")] = None,
    leaves: Annotated[int | None, Parameter(help="Simulations at a time (8; paper: 1).")] = None,
    explore: Annotated[
        float | None, Parameter(help="Elites: share of simulations that begin from nothing (0.25).")
    ] = None,
    redraw: Annotated[
        float | None,
        Parameter(help="Elites: share of the others that are written anew from a choice on (0.2)."),
    ] = None,
    formation: Formation = None,
    hull: HullFile = None,
    against: Annotated[
        Literal["sampling"] | None,
        Parameter(help="Then plain sampling under the same bounds; both stand in the plots."),
    ] = None,
    model: ModelName = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = None,
    constraints: Annotated[
        Literal["full", "syntax", "none"] | None,
        Parameter(help="full: crystallography and formula; syntax: the form alone; none (full)."),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    batch_size: BatchSize = None,
    workers: Annotated[int | None, Parameter(help="Processes with the energy model (1).")] = None,
    energy_seconds: Annotated[float | None, Parameter(help="Limit for one energy (60).")] = None,
    config: ConfigFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search for the crystals of lowest energy.

    crystallm search TiO2 --z 2 --simulations 200 --energy chgnet --out run/

    Needs pip install 'crystallm[energy]'. With --out, every round is kept as it is found: the same command
    goes on after a kill, and with higher bounds it goes further. results.parquet has all that was written,
    cifs/ each distinct valid crystal, best_by_calls.png and best_by_seconds.png how the lowest energy fell.
    """
    flags = {
        "formula": formula, "z": z, "space_group": space_group, "simulations": simulations,
        "energy_calls": energy_calls, "minutes": minutes, "energy": energy, "out": out, "recipe": recipe,
        "method": method, "rule": rule, "width": width, "c": c, "cutoff": cutoff,
        "n_space_groups": n_space_groups, "rollouts": rollouts, "leaves": leaves, "explore": explore,
        "redraw": redraw, "against": against, "model": model, "temperature": temperature, "top_k": top_k,
        "top_p": top_p, "seed": seed, "constraints": constraints, "device": device, "dtype": dtype,
        "batch_size": batch_size, "workers": workers, "energy_seconds": energy_seconds,
        "formation": formation, "hull": hull,
    }  # fmt: skip
    asked = _asked(merged(config, flags))
    rows, summary = _searched(asked, shown=not (quiet or json))
    if json:
        print_json(rows)
    elif not quiet:
        from crystallm.cli import crystal_tables

        crystal_tables.print_search(rows, summary, asked.out, TABLE_ROWS)


def _asked(options: dict[str, Any]) -> Asked:
    """What the options ask for.

    Raises:
        InputError, CrystallmError: options that are out of range or cannot stand together; no such energy
            model, or not installed.
    """
    from crystallm.energy.registry import require
    from crystallm.generation.interpretation import interpret
    from crystallm.generation.request import Request, SamplingOptions, with_default_z
    from crystallm.options import validated
    from crystallm.structure_search.options import BOUNDS, split

    options = dict(options)
    n_workers = whole("workers", options.pop("workers", None), 1)
    out, against = options.pop("out", None), options.pop("against", None)
    formation, hull = bool(options.pop("formation", False)), options.pop("hull", None)
    if against not in (None, "sampling"):
        raise InputError(f"against = {against!r}: there is sampling")
    names: tuple[str, ...] = ("formula", "z", "space_group")
    one = {name: options.pop(name) for name in names if name in options}
    if one.get("formula") is None:
        raise InputError("search for what? Give a formula: crystallm search TiO2 --z 2")
    recipe = str(options.pop("recipe", "ours"))
    zero = options.get("top_k") == 0  # stands for all tokens
    how, rest = split(recipe, {**options, **({"top_k": None} if zero else {})})
    settings = validated(SamplingOptions, rest)
    request = with_default_z(validated(Request, one))
    require(how.energy)
    plan = interpret(request, fitting=settings.constraints == "full")
    other = None
    if against is not None:
        kept = {*BOUNDS, "energy", "energy_seconds", "leaves"}
        other = how.model_copy(
            update={n: f.default for n, f in type(how).model_fields.items() if n not in kept}
        ).model_copy(update={"method": "sampling"})
    if hull is not None:
        from crystallm.thermodynamics.hull import Hull

        # Entries that are none, or do not go with what is asked for, are refused before anything is written.
        entries = Hull(Path(str(hull)))
        for cell in (plan.cell, *plan.cells):
            if cell is not None:
                entries.require(symbol for symbol, _ in cell.composition)
    folder = None if out is None else Path(str(out))
    return Asked(
        request, how, settings, other, n_workers, folder, formation, None if hull is None else str(hull)
    )


def _searched(asked: Asked, *, shown: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Search; rows of the distinct crystals, best first, and what there is to say of the search."""
    from crystallm.crystals import annotation
    from crystallm.execution import mapping
    from crystallm.generation.generator import Generator
    from crystallm.models.load import load_model
    from crystallm.storage import files
    from crystallm.structure_search.api import best_first

    if asked.out is not None:
        files.check_place(asked.out)
    model = load_model(asked.settings.model, device=asked.settings.device, dtype=asked.settings.dtype)
    Generator(model, [asked.request], asked.settings).check()
    arms: dict[str, tuple[SearchOptions, Path | None]] = {asked.options.method: (asked.options, asked.out)}
    if asked.against is not None:
        beside = None if asked.out is None else asked.out / "sampling"
        arms["plain sampling"] = (asked.against, beside)
    lines: dict[str, Any] = {}
    results: list[tuple[list[dict[str, Any]], dict[str, Any]]] = []
    with mapping.kept(asked.workers, end=True):
        for name, (options, folder) in arms.items():
            run = _run(asked, model, options, folder, name, shown=shown)
            lines[name] = run.found
            ranked = best_first(run.found)
            results.append(_finished(run, ranked, folder))
            if asked.formation or asked.hull is not None:  # what may fail comes when all else is written
                annotation.add_relative_energies(
                    [one.crystal for one in run.found],
                    options.energy,
                    formation=asked.formation,
                    hull=asked.hull,
                    device=asked.settings.device,
                )
                results[-1] = _finished(run, ranked, folder)
    if asked.out is not None:
        _draw(lines, asked.out)
    rows, summary = results[0]
    if len(results) > 1:
        summary = summary | {"against": results[1][1]}
        if asked.out is not None:
            files.write_json(asked.out / SUMMARY, summary)
    return rows, summary


def _run(
    asked: Asked, model: Model, options: SearchOptions, folder: Path | None, name: str, *, shown: bool
) -> Search:
    """One search, its crystals written as they are found."""
    from crystallm.storage import files, run_folder
    from crystallm.structure_search.search import Search

    path = None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        question = _question(asked, model, options)
        if (folder / run_folder.CONFIG).exists():
            run_folder.check_config(folder / run_folder.CONFIG, question)
        elif (folder / LOG).exists():
            raise InputError(f"{folder / LOG} is of another origin: choose another folder with --out")
        else:
            files.write_json(folder / run_folder.CONFIG, question)
        path = folder / LOG
    search = Search(model, asked.request, options, asked.settings, path, asked.workers)
    with _live(name, shown=shown) as tell:

        def on_round(state: State, found: Sequence[SearchSample]) -> None:
            tell(state)
            if folder is not None:
                for one in found:
                    _write_cif(folder, one)

        search.run(on_round=on_round)
    return search


def _question(asked: Asked, model: Model, options: SearchOptions) -> dict[str, Any]:
    """What decides the crystals: not for how long, on which device, or by how many processes."""
    from crystallm.models.model import fingerprint
    from crystallm.structure_search.options import BOUNDS

    return asked.settings.model_dump(exclude={"device", "batch_size"}) | {
        "command": "search",
        "version": __version__,
        "weights": fingerprint(model),
        "request": asked.request.model_dump(exclude={"n", "prompt"}),
        "search": options.model_dump(exclude={*BOUNDS, "energy_seconds"}),
    }


def _file(one: SearchSample) -> str | None:
    """The name of a crystal's file; None for what has none."""
    from crystallm.crystallography import formula

    crystal = one.crystal
    if not crystal.validity.valid or one.equals is not None:
        return None
    return (
        f"{formula.short(crystal.structure.formula)}-sg{crystal.space_group_number}-{one.call or 0:05d}.cif"
    )


def _write_cif(folder: Path, one: SearchSample) -> None:
    from crystallm.storage import files

    name = _file(one)
    if name is not None and not (folder / "cifs" / name).exists():
        files.write_atomically(folder / "cifs" / name, one.crystal.cif.encode(), sync=False)


def _finished(
    run: Search, ranked: Sequence[Crystal], folder: Path | None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Write the table of what a search has found; rows of the distinct ones, as they are ranked."""
    from crystallm.crystals.table import COLUMNS
    from crystallm.storage import files, run_folder
    from crystallm.storage import tables as storage_tables

    columns = COLUMNS | {
        "simulation": "int32", "move": "string", "call": "int32", "equals": "int32", "seconds": "float64"
    }  # fmt: skip
    request = run.request
    rows = []
    for place, one in enumerate(run.found):
        row = one.crystal.row() | {
            "request": 0, "sample": place, "asked_formula": request.formula,
            "asked_z": None if request.z == "auto" else request.z, "asked_space_group": request.space_group,
            "simulation": one.simulation, "move": one.move, "call": one.call, "equals": one.equals,
            "seconds": one.seconds, "file": _file(one),
        }  # fmt: skip
        rows.append({name: row.get(name) for name in columns})
    place_of = {id(one.crystal): place for place, one in enumerate(run.found)}
    best = [rows[place_of[id(crystal)]] for crystal in ranked]
    state = run.state
    lost = [one.crystal.energy_reason for one in run.found if one.call and one.crystal.energy is None]
    summary = {
        "note": run.note,
        "method": run.options.method,
        "simulations": state.simulations,
        "energy_calls": state.calls,
        "texts": state.texts,
        "valid": state.valid,
        "distinct": len(best),
        "lowest": state.best,
        "seconds": state.seconds,
        "without_energy": len(lost),
        "why": lost[-1] if lost else None,
        "stopped": run.stopped or None,
    }
    if folder is not None:
        files.write_atomically(folder / run_folder.RESULTS, storage_tables.as_parquet(rows, columns))
        files.write_json(folder / SUMMARY, summary)
    return best, summary


def _draw(lines: dict[str, Sequence[SearchSample]], folder: Path) -> None:
    """How the lowest energy fell."""
    from crystallm.storage import files
    from crystallm.structure_search.api import best_so_far
    from crystallm.visualization import charts

    for name, label, by in (("calls", "energy calls", False), ("seconds", "seconds", True)):
        points = {arm: best_so_far(found, seconds=by) for arm, found in lines.items()}
        picture = charts.curves(points, labels=(label, "lowest energy (eV/atom)"))
        files.write_atomically(folder / f"best_by_{name}.png", picture)


@contextlib.contextmanager
def _live(name: str, *, shown: bool) -> Iterator[Callable[[State], None]]:
    """A line on standard error, if that is a terminal, that tells how far a search is."""
    if not (shown and sys.stderr.isatty()):
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{name}: loading the energy model") as status:
        yield lambda state: status.update(f"{name}: {told(state)}")


def told(state: State) -> str:
    """How far a search is, one line."""
    best = "no energy yet" if state.best is None else f"best {state.best:.4f} eV/atom"
    share = f"{state.valid / state.texts:.0%} valid" if state.texts else "nothing written"
    pace = f"{state.simulations / state.seconds:.1f} simulations/s" if state.seconds else ""
    return f"{state.simulations} simulations, {state.calls} energies, {best}, {share}, {pace}"
