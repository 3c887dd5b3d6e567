"""Compute the energies of known crystals: the entries of a convex hull, by one energy model and one method.

The entries are a file of JSON Lines that `thermodynamics.hull` reads. The run is resumable: entries are
appended block by block, and sorted at the end.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystallm.crystallography import elements
from crystallm.energy import registry
from crystallm.errors import CrystallmError, InputError
from crystallm.execution.devices import resolve_device
from crystallm.execution.pool import ProcessPool
from crystallm.execution.progress import Progress, no_progress
from crystallm.sources import collection
from crystallm.storage import journal
from crystallm.storage.files import check_file
from crystallm.structures.known_structures import formula_in
from crystallm.thermodynamics import collection_energies, formation
from crystallm.thermodynamics.hull import MissingElements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from crystallm.pipelines.options import HullOptions
    from crystallm.sources.entry import Entry
    from crystallm.thermodynamics.hull import Hull

    Key = tuple[int, str]  # number and id of a crystal; -1 and the symbol for an element
    Rows = dict[Key, dict[str, Any]]

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HullResult:
    """The entries of a hull.

    Attributes:
        failures: reasons why crystals have no entry, and how often.
    """

    n_entries: int
    failures: Counter[str]


def run(
    options: HullOptions,
    workers: int | None = None,
    device: str = "auto",
    *,
    progress: Progress = no_progress,
) -> HullResult:
    """Write the entries of a hull, or complete a file that was begun.

    Args:
        workers: processes at a time; None: one for each core, or one on a GPU.

    Raises:
        InputError: the file holds something else; no crystal of the collection of chemical systems states its
            formula.
        CrystallmError: a file cannot be read or written; no crystal gives an entry.
    """
    path, out = options.collection(), options.out
    if out is None:
        raise InputError("no file for the entries: see crystallm hull --help")
    model = options.energy or registry.DEFAULT
    check_file(out, ".jsonl")
    device, workers = energy_workers(model, device, workers)
    systems = None if options.chemical_systems is None else _chemical_systems(options.chemical_systems)
    rows = _stored(out, {"model": model, "relaxed": options.relax})
    if rows:
        journal.write_records(out, _in_order(rows))  # without an incomplete last line
    entries = _Entries(options, model, out, rows, systems, workers, device)
    with progress("computing energies", None) as advance:
        entries.add_crystals(path, advance)
    entries.add_elements()
    if not rows:
        why = "; ".join(entries.failures) or "none is of these chemical systems"
        raise CrystallmError(f"{path!r} gives no entry: {why}")
    journal.write_records(out, _in_order(rows))
    return HullResult(len(rows), entries.failures)


@dataclass
class _Entries:
    """The entries of a file, and what is added to them."""

    options: HullOptions
    model: str
    out: Path
    rows: Rows
    systems: Sequence[frozenset[str]] | None
    workers: int
    device: str
    failures: Counter[str] = field(default_factory=Counter)
    symbols: set[str] = field(default_factory=set)

    def add_crystals(self, path: str, advance: Callable[[int], None]) -> None:
        """Add the crystals of a collection that have no entry, block by block."""
        crystals = self._missing(path)
        done = 0
        with ProcessPool(self.workers) as executor:
            while block := list(itertools.islice(crystals, collection_energies.BLOCK)):
                energies = collection_energies.collection_energies(
                    [str(entry.text) for _, entry in block],
                    self.model,
                    options=self.options.relaxation,
                    device=self.device,
                    n_workers=self.workers,
                    executor=executor,
                )
                new: Rows = {}
                for (number, entry), result in zip(block, energies, strict=True):
                    if result.structure is None or result.energy is None:
                        self.failures[result.reason] += 1
                        continue
                    # Composition.formula asks for electronegativities, which noble gases lack.
                    amounts = sorted(result.structure.composition.get_el_amt_dict().items())
                    formula = " ".join(f"{symbol}{amount:g}" for symbol, amount in amounts)
                    new[number, entry.id] = self._row(number, entry.id, formula, result.energy)
                self.rows |= new
                if new:
                    journal.append_records(self.out, _in_order(new))
                done += len(block)
                advance(done)

    def add_elements(self) -> None:
        """Add the reference crystals of the elements, which are always relaxed."""
        symbols = set().union(self.symbols, *(self.systems or ()))
        energies = formation.element_energies(
            symbols & set(elements.symbols()), self.model, device=self.device
        )
        for symbol, energy in energies.items():
            self.rows[-1, symbol] = self._row(-1, symbol, symbol, energy)
        for symbol in symbols - energies.keys():
            self.failures[f"the element {symbol}: its reference crystal has no energy"] += 1

    def _missing(self, path: str) -> Iterator[tuple[int, Entry]]:
        """Yield the crystals of the chemical systems that have no entry, with their numbers."""
        for number, entry in enumerate(collection.read_cifs(path)):
            if entry.text is None:
                if self.systems is None:
                    self.failures[f"not read: {entry.problem}"] += 1
                continue
            symbols = entry_elements(entry)
            if self.systems is None:
                self.symbols.update(symbols)
            elif not symbols or not any(symbols <= system for system in self.systems):
                continue
            if (number, entry.id) not in self.rows:
                yield number, entry

    def _row(self, number: int, name: str, formula: str, energy: float) -> dict[str, Any]:
        return {
            "number": number,
            "id": name,
            "composition": formula.replace(" ", ""),
            "energy_per_atom": energy,
            "model": self.model,
            "relaxed": self.options.relax,
        }


def _stored(out: Path, method: dict[str, Any]) -> Rows:
    """Return the entries of a file; none if it does not exist."""
    rows: Rows = {}
    for line, row in enumerate(journal.read_records(out), start=1):
        try:
            key = (int(row["number"]), str(row["id"]))
            stored = {name: row[name] for name in method}
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{str(out)!r}, line {line}: not of crystallm hull; choose another --out"
            ) from None
        for name, now in method.items():
            if stored[name] != now:
                raise InputError(
                    f"{str(out)!r} holds other entries ({name} was {stored[name]}, now {now}): choose "
                    "another --out, or delete it"
                )
        rows[key] = row
    return rows


def _in_order(rows: Rows) -> list[dict[str, Any]]:
    """Return entries in the order of the collection."""
    return [rows[key] for key in sorted(rows)]


def _chemical_systems(path: str) -> list[frozenset[str]]:
    """Return the chemical systems of a collection."""
    systems = {entry_elements(entry) for entry in collection.read_cifs(path)} - {frozenset[str]()}
    if not systems:
        raise InputError(f"chemical_systems = {path!r}: no crystal there states its formula")
    return list(systems)


def energy_workers(model: str, device: str, workers: int | None) -> tuple[str, int]:
    """Return the device on which an energy model runs, and the number of its processes.

    Args:
        device: by name; `auto` is a GPU where there is one. Energy models run on CPUs and CUDA alone.

    Raises:
        InputError, CrystallmError: no such model or device, or a missing extra.
    """
    registry.require(model)
    resolved = resolve_device(device)
    on_gpu = resolved.type == "cuda"
    return str(resolved) if on_gpu else "cpu", workers or (1 if on_gpu else os.cpu_count() or 1)


def entry_elements(entry: Entry) -> frozenset[str]:
    """Return the elements of an entry; none where it cannot be read."""
    try:
        formula = "" if entry.text is None else formula_in(entry.text)
    except CrystallmError:
        formula = ""
    return frozenset(re.findall("[A-Z][a-z]?", formula))


def checked(
    entries: Iterable[Entry],
    hull: Hull | None,
    hull_file: str | None,
    *,
    relaxed: bool,
) -> Iterator[Entry]:
    """Yield the same entries, and warn at the end of what the hull lacks for them.

    Args:
        entries: whose energies above the hull are requested.
        relaxed: whether the crystals are relaxed before their energies are computed.
    """
    if hull is None:
        yield from entries
        return
    missing = MissingElements(Path(str(hull_file)), hull, ("crystal", "crystals"))
    for entry in entries:
        missing.look(entry_elements(entry))
        yield entry
    if missing.said:
        LOG.warning("%s, which counts as not stable", missing.said)
    if (not relaxed) in hull.relaxed:
        theirs, ours, off = ("were not", "are", "low") if relaxed else ("were", "are not", "high")
        message = f"the entries of {hull_file!r} {theirs} relaxed, these crystals {ours}"
        LOG.warning("%s: energies above the hull come out too %s", message, off)
