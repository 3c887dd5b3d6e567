"""Relax the crystals of a collection with an energy model, and rank them within each formula.

With a folder the run is resumable: each crystal is stored as soon as it is relaxed.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystallm.crystallography import formula
from crystallm.crystals import ranking
from crystallm.energy import relaxation
from crystallm.energy.calculations import relax_many
from crystallm.errors import InputError, quiet_libraries
from crystallm.execution.progress import Progress, no_progress
from crystallm.execution.resumable import UnitResult, run_units
from crystallm.execution.tasks import Failure
from crystallm.pipelines.hull import energy_workers
from crystallm.sources import collection, parsing
from crystallm.storage.run_folder import RunFolder
from crystallm.structures import conversion, duplicates
from crystallm.thermodynamics.hull import Hull
from crystallm.thermodynamics.relative_energies import RelativeEnergies
from crystallm.validity.collection import survey

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from crystallm.energy.options import RelaxOptions
    from crystallm.energy.relaxation import Relaxed
    from crystallm.pipelines.options import RelaxCollectionOptions
    from crystallm.sources.entry import Entry

    Row = dict[str, Any]

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
    "kept": "bool",
    "reason": "string",
    "note": "string",
    "file": "string",
    "cif": "string",
}
"""Columns of the table of relaxed crystals, with their pyarrow types. Energies in eV per atom, the largest
remaining force in eV/Å, volumes in Å^3, space groups with a tolerance of 0.01 Å. Cluster, its size and rank
are those among the crystals of one reduced formula, and null unless the best ones were requested, which are
then those kept. A crystal that was not relaxed has nulls, and the reason; `note` is on how it was read."""


def run(
    options: RelaxCollectionOptions,
    relaxation_options: RelaxOptions,
    workers: int | None = None,
    device: str = "auto",
    *,
    progress: Progress = no_progress,
) -> list[Row]:
    """Relax the crystals of a collection; nothing that one of them holds stops the run.

    Args:
        workers: processes at a time, each with the model; None: one for each core, or one on a GPU.

    Returns:
        A row with COLUMNS for each crystal, in their order; see `best_rows` for those of `options.best`.

    Raises:
        InputError, CrystallmError: no such collection, energy model or hull; the folder holds another run, or
            cannot be written.
    """
    path = options.collection()
    if relaxation_options.trajectory and options.out is None:
        raise InputError("--trajectory needs --out: name a folder for the results")
    device, workers = energy_workers(options.energy, device, workers)
    if options.hull is not None:
        Hull(Path(options.hull))  # reject a bad file before anything is relaxed
    names = FileNames()
    n_entries, digest = survey(names.watch(collection.read_cifs(path)))
    config = RunFolder.configuration("relax", options, relaxation_options, digest=digest)
    folder = RunFolder(options.out, config, COLUMNS)
    crystals = _Crystals(
        options, relaxation_options, folder, names, workers=max(1, min(workers, n_entries)), device=device
    )
    run_units(
        collection.read_cifs(path),
        crystals.relax,
        folder,
        task="relaxing crystals",
        total=n_entries,
        progress=progress,
    )
    if options.best is not None and not folder.finished:
        rows = _ranked(folder.rows(), options.best, workers)
        for row in best_rows(rows, options.best):
            folder.write_file(f"cifs/{row['file']}", row["cif"].encode())
        folder.finish(rows=rows)
    folder.finish()
    return folder.rows()


@dataclass(frozen=True, slots=True)
class _Crystals:
    """How the crystals of a run are relaxed, and what is stored of each."""

    options: RelaxCollectionOptions
    relaxation_options: RelaxOptions
    folder: RunFolder
    names: FileNames
    workers: int
    device: str

    def relax(self, units: Iterator[tuple[int, Entry]], _: Callable[[int], None]) -> Generator[UnitResult]:
        """Yield the row of each crystal as it is relaxed, those of equal texts once for all of them."""
        related = RelativeEnergies(
            self.options.energy,
            formation=self.options.formation_energy,
            hull=self.options.hull,
            device=self.device,
        )
        equal: dict[str, list[tuple[int, Entry]]] = {}
        for number, entry in units:
            if entry.text is None:
                yield UnitResult(number, [_failed(entry.id, f"not read: {entry.problem}")])
            else:
                equal.setdefault(entry.text, []).append((number, entry))
        groups = list(equal.values())
        for i, result in relax_many(
            equal,
            self.options.energy,
            self.relaxation_options,
            device=self.device,
            n_workers=self.workers,
            seconds=self.options.timeout,
        ):
            if isinstance(result, Failure):
                yield from (UnitResult(n, [_failed(entry.id, result.reason)]) for n, entry in groups[i])
                continue
            common = _row(result) | related.columns(result.structure.composition, result.energy)
            for number, entry in groups[i]:
                file = self.names.file(number, entry.id)
                note = "; ".join(note for note in (entry.note, result.note) if note)
                row = common | {"id": entry.id, "file": f"{file}.cif", "note": note}
                self._write_trajectory(file, result)
                # With `best`, those that get a file are selected when all are relaxed.
                yield UnitResult(number, [row], {} if self.options.best else {row["file"]: row["cif"]})

    def _write_trajectory(self, file: str, relaxed: Relaxed) -> None:
        if relaxed.trajectory:
            # In a file the energy is that of the cell, as is usual.
            text = "".join(
                conversion.frame(structure, {"energy": energy * len(structure)})
                for structure, energy in relaxed.trajectory
            )
            self.folder.write_file(f"trajectories/{file}.extxyz", text.encode())


def _row(relaxed: Relaxed) -> Row:
    """Return the columns of a relaxed crystal that do not depend on its name."""
    before, after = relaxed.before, relaxed.structure
    group_before, group = relaxation.space_group(before), relaxation.space_group(after)
    return dict.fromkeys(COLUMNS) | {
        "formula": formula.of_atoms(after.composition.get_el_amt_dict()),
        "n_atoms": len(after),
        "energy_before": relaxed.energy_before,
        "energy": relaxed.energy,
        "steps": relaxed.steps,
        "converged": relaxed.converged,
        "fmax": relaxed.fmax,
        "space_group_before": None if group_before is None else group_before[0],
        "space_group": None if group is None else group[0],
        "space_group_number": None if group is None else group[1],
        "volume_per_atom_before": before.volume / len(before),
        "volume_per_atom": after.volume / len(after),
        "cif": relaxation.to_cif(after),
    }


def _failed(name: str, reason: str) -> Row:
    return dict.fromkeys(COLUMNS) | {"id": name, "reason": reason}


def _ranked(rows: Sequence[Row], best: int, workers: int) -> list[Row]:
    """Return the rows with clusters and ranks within each reduced formula; only the best have files."""
    ranked = [dict(row) for row in rows]
    groups = list(_by_formula(ranked).values())
    clusters_of = duplicates.cluster_duplicates(
        [[parsing.structure(row["cif"]) for row in group] for group in groups], workers=workers
    )
    for group, clusters in zip(groups, clusters_of, strict=True):
        energies = [row["energy"] for row in group]
        ranks = ranking.rank_samples(
            clusters,
            [math.nan] * len(group),
            [True] * len(group),
            "energy",
            energies,
            volumes=[row["volume_per_atom"] for row in group],
        )
        for row, cluster, rank in zip(group, clusters, ranks, strict=True):
            row |= {"cluster": cluster, "cluster_size": clusters.count(cluster), "rank": rank}
    selected = {id(row) for row in best_rows(ranked, best)}
    for row in ranked:
        row["kept"] = id(row) in selected
        if not row["kept"]:
            row["file"] = None
    return ranked


def best_rows(rows: Sequence[Row], best: int) -> list[Row]:
    """Return the rows of the lowest distinct crystals of each reduced formula."""
    selected = []
    for group in _by_formula(rows).values():
        last = min(best, len({row["cluster"] for row in group}))  # duplicates rank after all distinct ones
        selected += [row for row in sorted(group, key=lambda row: int(row["rank"])) if row["rank"] <= last]
    return selected


def _by_formula(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return the rows that have an energy by reduced formula, in their order."""
    from pymatgen.core import Composition

    groups: dict[str, list[Row]] = {}
    with quiet_libraries():
        for row in rows:
            if row["energy"] is not None:
                groups.setdefault(Composition(row["formula"]).reduced_formula, []).append(row)
    return groups


@dataclass
class FileNames:
    """File names for the crystals of a collection: their ids, numbered where two of them would be equal."""

    _used: set[str] = field(default_factory=set)
    _numbered: bool = False

    def watch(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield the same entries, and record their names."""
        for entry in entries:
            name = self._plain(entry.id).lower()  # some file systems ignore case
            self._numbered |= name in self._used
            self._used.add(name)
            yield entry

    def file(self, number: int, name: str) -> str:
        """Return the name of a crystal's file, without its ending."""
        return f"{number:05d}-{self._plain(name)}" if self._numbered else self._plain(name)

    @staticmethod
    def _plain(name: str) -> str:
        """Return a name that every file system accepts, and that is not hidden."""
        return re.sub("[^A-Za-z0-9._+-]+", "_", name)[-60:].lstrip(".") or "crystal"
