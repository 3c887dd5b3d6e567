"""`crystallm relax`: crystals of any collection at the nearest minimum of an energy model."""

from __future__ import annotations

import math
import os
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from cyclopts import Parameter

from crystallm.cli.console import print_json, progress
from crystallm.cli.option_groups import ConfigFile, Device, Formation, HullFile, Json, Quiet, merged, whole
from crystallm.errors import InputError
from crystallm.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from crystallm.energy.relaxation import Relaxed, RelaxOptions
    from crystallm.execution.tasks import Failure
    from crystallm.sources.entry import Entry
    from crystallm.storage.run_folder import RunFolder


COLUMNS = {
    "id": "string",
    "formula": "string",
    "n_atoms": "int32",
    "energy_before": "float64",
    "energy": "float64",
    "formation_energy": "float64",
    "e_above_hull": "float64",
    "steps": "int32",
    "converged": "bool",
    "fmax": "float64",
    "space_group_before": "string",
    "space_group": "string",
    "space_group_number": "int32",
    "volume_per_atom_before": "float64",
    "volume_per_atom": "float64",
    "cluster": "int32",
    "cluster_size": "int32",
    "rank": "int32",
    "reason": "string",
    "file": "string",
    "cif": "string",
}
"""Columns of the table of relaxed crystals, with their pyarrow types. Energies in eV per atom, the largest
force left in eV/Å, volumes in Å^3, space groups as found within 0.01 Å. Cluster, its size and rank are
those among the crystals of one reduced formula, and null unless the best ones were asked for. What was not
relaxed has nulls, and the reason."""

TABLE_ROWS = 40
"""Crystals in the printed table, at most; the results have them all."""


class Asked(NamedTuple):
    """What the options ask for."""

    path: str
    model: str
    options: RelaxOptions
    device: str
    workers: int
    seconds: float
    out: Path | None
    formation: bool
    hull: str | None
    best: int | None


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
    formation: Formation = None,
    hull: HullFile = None,
    workers: Annotated[
        int | None, Parameter(help="Processes, each with the model (one a core; on a GPU, one).")
    ] = None,
    seconds: Annotated[float | None, Parameter(help="Limit for one crystal (600).")] = None,
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
        "trajectory": trajectory, "out": out, "workers": workers, "seconds": seconds, "device": device,
        "formation": formation, "hull": hull, "best": best,
    }  # fmt: skip
    asked = _asked(merged(config, flags))
    rows = _relaxed(asked, shown=not (quiet or json))
    n_rows = len(rows)
    if asked.best is not None:
        rows = _kept(rows, asked.best)
    if json:
        print_json([{name: value for name, value in row.items() if name != "cif"} for row in rows])
    elif not quiet:
        from crystallm.cli import crystal_tables

        crystal_tables.print_relaxed(rows, asked.out, TABLE_ROWS, n_rows=n_rows)


def _asked(options: dict[str, Any]) -> Asked:
    """What the options ask for.

    Raises:
        InputError, CrystallmError: an option out of its range; no such model, or not installed.
    """
    from crystallm.energy import registry as models
    from crystallm.energy.calculations import RELAX_SECONDS
    from crystallm.energy.relaxation import RelaxOptions
    from crystallm.options import validated

    path = options.get("path")
    if path is None:
        raise InputError("no crystals: name a folder, an archive, a table or a CIF")
    known = {name: options[name] for name in RelaxOptions.model_fields if name in options}
    how = validated(RelaxOptions, known)
    out = None if options.get("out") is None else Path(str(options["out"]))
    if how.trajectory and out is None:
        raise InputError("--trajectory needs --out: name a folder for the results")
    name = str(options.get("model", models.DEFAULT))
    models.require(name)
    seconds = options.get("seconds", RELAX_SECONDS)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise InputError(f"seconds = {seconds!r}: write a positive number")

    from crystallm.execution.devices import resolve_device

    device = str(resolve_device(str(options.get("device", "auto"))))
    n_workers = whole("workers", options.get("workers"), (os.cpu_count() or 1) if device == "cpu" else 1)
    formation, hull = bool(options.get("formation", False)), options.get("hull")
    if hull is not None:
        from crystallm.thermodynamics.hull import Hull

        Hull(Path(str(hull)))  # a file that is none is refused before anything is relaxed
    return Asked(
        str(path),
        name,
        how,
        device,
        n_workers,
        float(seconds),
        out,
        formation,
        None if hull is None else str(hull),
        None if options.get("best") is None else whole("best", options["best"], 1),
    )


def _relaxed(asked: Asked, *, shown: bool) -> list[dict[str, Any]]:
    """A row for each crystal of a collection; those of an unfinished run are not relaxed again."""
    from crystallm.sources import collection
    from crystallm.storage import files, run_folder
    from crystallm.validity import collection as validity_collection

    names = Names()
    n_entries, digest = validity_collection.survey(names.watch(collection.read_cifs(asked.path)))
    folder, todo = None, set(range(n_entries))
    if asked.out is not None:
        question = {
            "command": "relax", "version": __version__, "model": asked.model, "digest": digest,
            **asked.options.model_dump(),
            **({"formation": True} if asked.formation else {}),
            **({} if asked.hull is None else {"hull": asked.hull}),
            **({} if asked.best is None else {"best": asked.best}),
        }  # fmt: skip
        folder = run_folder.RunFolder(asked.out, question, n_entries, COLUMNS)
        todo = folder.open()
    rows: dict[int, dict[str, Any]] = {}
    done = n_entries - len(todo)
    entries = ((i, entry) for i, entry in enumerate(collection.read_cifs(asked.path)) if i in todo)
    with progress("relaxing crystals", n_entries, shown=shown) as advance:
        advance(done)
        for number, row, found in _results(asked, names, entries, len(todo)):
            if folder is None:
                rows[number] = row
            else:
                _write(folder, names, number, row, found, named=asked.best is None)
            done += 1
            advance(done)
    if folder is None:
        found_rows = [rows[number] for number in sorted(rows)]
        return found_rows if asked.best is None else _ranked(found_rows, asked)
    if asked.best is None or folder.finished:
        folder.finish()
        return folder.rows()
    ranked = _ranked(folder.rows(), asked)
    for row in _kept(ranked, asked.best):
        files.write_atomically(folder.path / "cifs" / row["file"], row["cif"].encode(), sync=False)
    folder.finish(rows=ranked)
    return ranked


def _ranked(rows: list[dict[str, Any]], asked: Asked) -> list[dict[str, Any]]:
    """The same rows with clusters and ranks, those of each reduced formula on their own; see `answers`."""
    from crystallm.crystals import ranking
    from crystallm.sources import parsing
    from crystallm.structures import duplicates

    ranked = [dict(row) for row in rows]
    groups = list(_by_formula(ranked).values())
    folded = duplicates.cluster_duplicates(
        [[parsing.structure(row["cif"]) for row in group] for group in groups], workers=asked.workers
    )
    for group, clusters in zip(groups, folded, strict=True):
        energies = [row["energy"] for row in group]
        ranks = ranking.rank_samples(
            clusters, [math.nan] * len(group), [True] * len(group), "energy", energies
        )
        for row, cluster, place in zip(group, clusters, ranks, strict=True):
            row |= {"cluster": cluster, "cluster_size": clusters.count(cluster), "rank": place}
    kept = {id(row) for row in _kept(ranked, asked.best or len(ranked))}
    for row in ranked:
        if id(row) not in kept:
            row["file"] = None
    return ranked


def _kept(rows: list[dict[str, Any]], best: int) -> list[dict[str, Any]]:
    """The lowest distinct crystals of each formula, in the order in which formulas come."""
    kept = []
    for group in _by_formula(rows).values():
        last = min(best, len({row["cluster"] for row in group}))  # repeats rank behind all that is distinct
        kept += [row for row in sorted(group, key=lambda row: int(row["rank"])) if row["rank"] <= last]
    return kept


def _by_formula(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows that have an energy by reduced formula, in their order."""
    from pymatgen.core import Composition

    groups: dict[str, list[dict[str, Any]]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of elements without an electronegativity, by which it sorts
        for row in rows:
            if row["energy"] is not None:
                groups.setdefault(Composition(row["formula"]).reduced_formula, []).append(row)
    return groups


def _results(
    asked: Asked, names: Names, entries: Iterator[tuple[int, Entry]], n_entries: int
) -> Iterator[tuple[int, dict[str, Any], Relaxed | None]]:
    """Number, row, and what became of each crystal, as they finish."""
    from crystallm.energy.calculations import relax_many
    from crystallm.thermodynamics.relative_energies import RelativeEnergies

    relation = RelativeEnergies(asked.model, formation=asked.formation, hull=asked.hull, device=asked.device)
    drawn: list[tuple[int, str]] = []
    unread: list[tuple[int, dict[str, Any]]] = []

    def texts() -> Iterator[str]:
        for number, entry in entries:
            if entry.text is None:
                unread.append((number, _lost(entry.id, f"not read: {entry.problem}")))
                continue
            drawn.append((number, entry.id))
            yield entry.text

    found = relax_many(
        texts(),
        asked.model,
        asked.options,
        device=asked.device,
        n_workers=max(1, min(asked.workers, n_entries)),
        seconds=asked.seconds,
    )
    for i, one in found:
        number, name = drawn[i]
        row, relaxed = _row(names.file(number, name), name, one)
        if relaxed is not None:
            row |= relation.told(relaxed.structure.composition, relaxed.energy)
        yield number, row, relaxed
    for number, row in unread:
        yield number, row, None


def _row(file: str, name: str, found: Relaxed | Failure) -> tuple[dict[str, Any], Relaxed | None]:
    from crystallm.crystallography import formula
    from crystallm.energy import relaxation
    from crystallm.execution import tasks

    if isinstance(found, tasks.Failure):
        return _lost(name, found.reason), None
    before, after = found.before, found.structure
    group = relaxation.space_group(after)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of elements without an electronegativity, by which it sorts
        cell = formula.short(after.composition.formula)
    told = {
        "id": name,
        "formula": cell,
        "n_atoms": len(after),
        "energy_before": found.energy_before,
        "energy": found.energy,
        "steps": found.steps,
        "converged": found.converged,
        "fmax": found.fmax,
        "space_group_before": (relaxation.space_group(before) or (None,))[0],
        "space_group": None if group is None else group[0],
        "space_group_number": None if group is None else group[1],
        "volume_per_atom_before": before.volume / len(before),
        "volume_per_atom": after.volume / len(after),
        "file": f"{file}.cif",
        "cif": relaxation.to_cif(after),
    }
    return dict.fromkeys(COLUMNS) | told, found


def _lost(name: str, reason: str) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS) | {"id": name, "reason": reason}


class Names:
    """Names of files for the crystals of a collection: what it calls them, numbered where two are alike."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._alike = False

    def watch(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """The same entries, whose names are taken note of."""
        for entry in entries:
            name = self._plain(entry.id).lower()  # there are disks that tell no A from a
            self._alike |= name in self._taken
            self._taken.add(name)
            yield entry

    def file(self, number: int, name: str) -> str:
        """The name of a crystal's file, without its ending."""
        return f"{number:05d}-{self._plain(name)}" if self._alike else self._plain(name)

    @staticmethod
    def _plain(name: str) -> str:
        """A name that every disk takes, and no hidden one."""
        return re.sub("[^A-Za-z0-9._+-]+", "_", name)[-60:].lstrip(".") or "crystal"


def _write(
    folder: RunFolder,
    names: Names,
    number: int,
    row: dict[str, Any],
    found: Relaxed | None,
    *,
    named: bool,
) -> None:
    """Keep what became of a crystal; its CIF where it is `named` already, and not still to be chosen."""
    from crystallm.storage import files
    from crystallm.structures import conversion

    if found is not None and found.trajectory:
        # In a file the energy is that of the cell, as is usual.
        text = "".join(
            conversion.frame(structure, {"energy": energy * len(structure)})
            for structure, energy in found.trajectory
        )
        path = folder.path / "trajectories" / f"{names.file(number, row['id'])}.extxyz"
        files.write_atomically(path, text.encode(), sync=False)
    folder.write_unit(number, [row], {row["file"]: row["cif"]} if named and row["file"] else {})
