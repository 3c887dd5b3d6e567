"""Evaluate a collection of crystals: validity, and on request energies, stability, uniqueness and novelty.

With a folder the run is resumable: each block of crystals is stored as soon as it is checked.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crystallm.benchmarks import sun
from crystallm.energy import relaxation
from crystallm.errors import CrystallmError, InputError
from crystallm.execution.place import ExecutionOptions, open_place
from crystallm.execution.progress import Progress, no_progress
from crystallm.execution.resumable import UnitResult, run_units
from crystallm.pipelines.hull import checked, energy_workers
from crystallm.pipelines.options import EvaluateOptions
from crystallm.sources import collection
from crystallm.sources.entry import Entry
from crystallm.storage.run_folder import RunFolder
from crystallm.thermodynamics import collection_energies
from crystallm.thermodynamics.hull import Hull
from crystallm.validity import collection as validity

COUNTS = "known.json"
"""File of a run folder with the numbers of known crystals, which no row holds."""


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """The evaluation of a collection.

    Attributes:
        sun: totals of energies and comparisons; None where none were requested.
        counts: of known crystals, see `sun.compare`; empty without a known set.
        unverified_hull: whether nothing tells of which energy model the entries of the hull are.
    """

    name: str
    options: EvaluateOptions
    rows: Sequence[Mapping[str, Any]]
    validity: validity.Summary
    sun: sun.Sun | None
    counts: Mapping[str, int]
    unverified_hull: bool

    def record(self) -> dict[str, Any]:
        """Return the totals as JSON values."""
        record = self.validity.record()
        if self.sun is not None:
            names = ("energy", "relax", "steps", "hull", "known")
            options = self.options.model_dump(include=set(names), exclude_defaults=True, mode="json")
            record |= {"sun": self.sun.record() | {"options": options, **self.counts}}
        return record


def run(
    options: EvaluateOptions,
    execution: ExecutionOptions,
    device: str = "auto",
    *,
    progress: Progress = no_progress,
) -> EvaluationResult:
    """Evaluate the crystals of a collection; nothing that one of them holds stops the run.

    Raises:
        InputError, CrystallmError: no such collection, energy model, hull or known set; the folder holds
            another run, or cannot be written.
    """
    path = options.collection()
    workers = execution.workers or os.cpu_count() or 1
    if options.energy is not None:
        device, workers = energy_workers(options.energy, device, execution.workers)
    for known in options.known:  # before hours of work on the crystals
        if next(collection.read(known), None) is None:
            raise InputError(f"{known!r} holds no row")
    hull = _read_hull(options)
    entries = checked(collection.read_cifs(path), hull, options.hull, relaxed=options.relax)
    n_entries, digest = validity.survey(entries)
    folder = _folder(options, digest)
    blocks = _Blocks(options, hull, workers, device, execution.cluster)
    size = validity.BLOCK if options.energy is None else collection_energies.BLOCK
    run_units(
        validity.blocks(collection.read_cifs(path), size),
        blocks.check,
        folder,
        task="checking crystals",
        total=n_entries,
        size=len,
        progress=progress,
    )
    counts: dict[str, int] = {}
    if options.compares and not folder.finished:
        rows = folder.rows()
        if rows:
            with progress("comparing crystals", None) as advance:
                rows, counts = sun.compare(
                    rows,
                    (entry.text for entry in collection.read_cifs(path)),
                    options.known or None,
                    workers=workers,
                    on_done=lambda _, n, __: advance(n),
                )
        folder.write_file(COUNTS, json.dumps(counts, indent=1).encode())
        folder.finish(rows=rows)
    elif options.compares:
        counts = _stored_counts(folder)
    folder.finish()
    return _result(Path(path).name, options, folder.rows(), counts, hull)


def _read_hull(options: EvaluateOptions) -> Hull | None:
    if options.hull is None:
        return None
    hull = Hull(Path(options.hull))
    hull.check_model(str(options.energy))
    return hull


def _folder(options: EvaluateOptions, digest: str) -> RunFolder:
    facts = {"digest": digest}
    if options.hull is not None:  # a hull with more entries is another one
        facts["hull_digest"] = hashlib.blake2b(Path(options.hull).read_bytes(), digest_size=16).hexdigest()
    columns = validity.COLUMNS | (sun.COLUMNS if options.compares else {})
    return RunFolder(options.out, RunFolder.configuration("evaluate", options, **facts), columns)


@dataclass(frozen=True, slots=True)
class _Blocks:
    """How blocks of crystals are checked, and their energies computed."""

    options: EvaluateOptions
    hull: Hull | None
    workers: int
    device: str
    cluster: str | None

    def check(
        self, units: Iterator[tuple[int, list[Entry]]], advance: Callable[[int], None]
    ) -> Generator[UnitResult]:
        """Yield the rows of each block."""
        done = 0
        with open_place(self.cluster, self.workers) as executor:
            for number, block in units:
                rows = validity.check_entries(
                    block,
                    what=self.options.read_as,
                    workers=self.workers,
                    on_done=lambda n, start=done: advance(start + n),  # type: ignore[misc]
                    executor=executor,
                )
                if self.options.compares:
                    rows = self._add_energies(block, rows, executor)
                yield UnitResult(number, rows)
                done += len(block)

    def _add_energies(
        self, entries: Sequence[Entry], rows: Sequence[dict[str, Any]], executor: Executor
    ) -> list[dict[str, Any]]:
        """Return the rows with energies, and with columns for what is determined later.

        Skips crystals without a structure or with an implausible cell, for which energy models can take
        minutes.
        """
        rows = [row | dict.fromkeys(sun.COLUMNS) for row in rows]
        if self.options.energy is None:
            return rows
        texts: dict[int, str] = {}
        for i, (entry, row) in enumerate(zip(entries, rows, strict=True)):
            if entry.text is None or not row["readable"]:
                row["energy_reason"] = "no crystal"
            elif not row["sensible"]:
                row["energy_reason"] = "no sensible cell"
            else:
                texts[i] = entry.text
        energies = collection_energies.collection_energies(
            list(texts.values()),
            self.options.energy,
            options=self.options.relaxation,
            device=self.device,
            n_workers=self.workers,
            executor=executor,
        )
        for i, energy in zip(texts, energies, strict=True):
            rows[i] |= self._energy_columns(energy)
        return rows

    def _energy_columns(self, result: collection_energies.EnergyResult) -> dict[str, Any]:
        row: dict[str, Any] = {
            name: getattr(result, name) for name in ("energy", "energy_before", "converged", "rmsd")
        }
        row["energy_reason"] = result.reason or None
        if result.structure is None or result.energy is None:
            return row
        if self.options.relax:
            row["relaxed_cif"] = relaxation.to_cif(result.structure)
        if self.hull is not None:
            try:
                row["e_above_hull"] = self.hull.above(result.structure.composition, result.energy)
            except InputError as error:
                row["energy_reason"] = str(error)
        return row


def _stored_counts(folder: RunFolder) -> dict[str, int]:
    """Return the numbers of known crystals of a finished run; empty if the file was removed."""
    if folder.path is None or not (path := folder.path / COUNTS).exists():
        return {}
    try:
        return {str(name): int(count) for name, count in json.loads(path.read_text("utf-8")).items()}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise CrystallmError(f"{str(path)!r} is broken ({error}): delete it") from None


def _result(
    name: str,
    options: EvaluateOptions,
    rows: Sequence[Mapping[str, Any]],
    counts: Mapping[str, int],
    hull: Hull | None,
) -> EvaluationResult:
    totals = None
    summary = validity.summarise(rows)
    if options.compares:
        totals = sun.summarise(
            rows,
            bound=options.metastable_threshold,
            energies=options.energy is not None,
            relaxed=options.relax,
            hull=hull is not None,
            known=bool(options.known),
        )
    unverified = hull is not None and not hull.models
    return EvaluationResult(name, options, rows, summary, totals, counts, unverified)
