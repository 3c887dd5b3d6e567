"""What `crystallm evaluate` tells besides, on wish: energies, above a hull, unique, novel, S.U.N."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystallm.cli.option_groups import whole
from crystallm.errors import CrystallmError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor
    from contextlib import AbstractContextManager

    from crystallm.benchmarks.sun import Sun
    from crystallm.energy.relaxation import RelaxOptions
    from crystallm.sources.entry import Entry
    from crystallm.thermodynamics.hull import Hull
    from crystallm.visualization.html_report import HtmlReport


COUNTS = "known.json"
"""File of a run folder."""

SHARES = {
    "weighed": "have an energy",
    "converged": "relaxed to the end",
    "placed": "have an energy above the hull",
    "stable": "stable: ≤ 0 eV/atom above the hull",
    "metastable": "metastable: ≤ {bound:g} eV/atom",
    "unique": "unique",
    "novel": "novel",
    "sun": "S.U.N.: stable, unique, novel",
    "msun": "M.S.U.N.: metastable, unique, novel",
}

SPREADS = {"e_above_hull": ("energy above the hull, eV/atom", 3), "rmsd": ("moved by relaxing (RMSD), Å", 3)}
"""Names for a person, and digits."""


@dataclass(frozen=True)
class Asked:
    """What is asked for besides verdicts; nothing where `anything` is False.

    Attributes:
        model: energy model by name; None: no energies.
        relaxing: how to relax; None: as written.
        hull: of the entries in `hull_file`; None for none.
        known: folders and files of known crystals; None for none.
        bound: eV/atom above the hull, up to which a crystal is metastable.
        device: of the model.
        workers: processes at a time, for energies.
    """

    model: str | None
    relaxing: RelaxOptions | None
    hull: Hull | None
    hull_file: str | None
    known: tuple[str, ...] | None
    bound: float
    device: str
    workers: int

    @property
    def anything(self) -> bool:
        """Whether energies or comparisons are asked for."""
        return self.model is not None or self.known is not None

    @property
    def block(self) -> int | None:
        """Crystals between two writes; None: as many as without energies."""
        if self.model is None:
            return None
        from crystallm.thermodynamics import collection_energies

        return collection_energies.BLOCK

    def columns(self) -> dict[str, str]:
        """Columns of the rows besides those of verdicts."""
        from crystallm.benchmarks import sun

        return sun.COLUMNS if self.anything else {}

    def question(self) -> dict[str, Any]:
        """What a run folder has to remember of it: that on which the rows depend."""
        told = {
            "energy": self.model,
            "relax": None if self.relaxing is None else self.relaxing.model_dump(),
            "hull": self.hull_file,
            "hull_digest": None if self.hull_file is None else _digest(Path(self.hull_file)),
            "known": None if self.known is None else list(self.known),
        }
        return {name: value for name, value in told.items() if value is not None}

    def keeping(self) -> AbstractContextManager[Any]:
        """In which the processes of one block of crystals are kept for the next."""
        from crystallm.execution import mapping

        return nullcontext() if self.model is None else mapping.kept(self.workers, end=True)


def understood(options: Mapping[str, Any], workers: int) -> Asked:
    """What the options ask for, looked at before any work.

    Raises:
        InputError, CrystallmError: an option without the one that it belongs to, or out of its range; no such
            model, hull or known set.
    """
    from crystallm.benchmarks import sun
    from crystallm.sources import collection

    model, given = options.get("energy"), options.get("known") or ()
    known = (given,) if isinstance(given, str) else tuple(str(path) for path in given)
    for name, owner in (
        ("relax", "energy"),
        ("steps", "relax"),
        ("hull", "energy"),
        ("stable_below", "hull"),
    ):
        asked = options.get(name)
        if asked is not None and asked is not False and not options.get(owner):
            raise InputError(f"{_flag(name)} without {_flag(owner)}: give {_flag(owner)}, too (see --help)")
    bound = options.get("stable_below", sun.BOUND)
    if isinstance(bound, bool) or not isinstance(bound, int | float) or not 0 <= bound < math.inf:
        raise InputError(f"stable_below = {bound!r}: write an energy from 0, in eV/atom")
    hull = hull_file = None
    device, n_workers = "cpu", workers
    if model is not None:
        device, n_workers = placed(str(model), options, workers)
    if options.get("hull") is not None:
        from crystallm.thermodynamics.hull import Hull

        hull_file = str(options["hull"])
        hull = Hull(Path(hull_file))
        hull.check_model(str(model))
    for path in known:  # a wrong last file is told before hours of work on the first
        if next(collection.read(path), None) is None:
            raise InputError(f"{path!r} holds no row")
    return Asked(
        None if model is None else str(model),
        relaxing(options) if options.get("relax") else None,
        hull,
        hull_file,
        known or None,
        float(bound),
        device,
        n_workers,
    )


def placed(model: str, options: Mapping[str, Any], workers: int) -> tuple[str, int]:
    """Where an energy model runs, and in how many processes.

    Raises:
        InputError, CrystallmError: no such model or device.
    """
    from crystallm.energy import registry as models
    from crystallm.execution.devices import resolve_device

    models.require(model)
    where = resolve_device(str(options.get("device", "auto")))
    device = str(where) if where.type == "cuda" else "cpu"
    return device, workers if device == "cpu" or options.get("workers") else 1


def relaxing(options: Mapping[str, Any]) -> RelaxOptions:
    """How to relax.

    Raises:
        InputError: a number of steps that is none.
    """
    from crystallm.energy.relaxation import RelaxOptions
    from crystallm.thermodynamics.collection_energies import STEPS

    return RelaxOptions(steps=whole("steps", options.get("steps"), STEPS))


def looked(entries: Iterable[Entry], asked: Asked) -> Iterator[Entry]:
    """The same entries; when all are drawn, what the hull lacks for them is told in one line."""
    if asked.hull is None:
        yield from entries
        return
    from crystallm.thermodynamics.hull import MissingElements

    lacking = MissingElements(Path(str(asked.hull_file)), asked.hull, ("crystal", "crystals"))
    for entry in entries:
        lacking.look(symbols(entry))
        yield entry
    if lacking.said:
        sys.stderr.write(f"crystallm: {lacking.said}, which counts as not stable\n")
    relaxed = asked.relaxing is not None
    if (not relaxed) in asked.hull.relaxed:
        theirs, ours, off = ("were not", "are", "low") if relaxed else ("were", "are not", "high")
        said = f"the entries of {asked.hull_file!r} {theirs} relaxed, these crystals {ours}"
        sys.stderr.write(f"crystallm: {said}: energies above the hull come out too {off}\n")


def symbols(entry: Entry) -> frozenset[str]:
    """The elements of an entry by its formula; none where it has none."""
    import re

    from crystallm.structures.known_structures import formula_in

    formula = None if entry.text is None else formula_in(entry.text)
    return frozenset(re.findall("[A-Z][a-z]?", formula or ""))


def weigh(
    entries: Sequence[Entry], rows: Sequence[dict[str, Any]], asked: Asked, executor: Executor | None
) -> list[dict[str, Any]]:
    """Rows of judged crystals with their energies, and columns for what is not known yet.

    What is no crystal, or has no sensible cell, is not asked about: models take minutes for freaks.
    """
    from crystallm.benchmarks import sun
    from crystallm.energy import relaxation
    from crystallm.thermodynamics import collection_energies

    rows = [row | dict.fromkeys(sun.COLUMNS) for row in rows]
    if asked.model is None:
        return rows
    chosen: dict[int, str] = {}
    for i, (entry, row) in enumerate(zip(entries, rows, strict=True)):
        if entry.text is None or not row["readable"]:
            row["energy_reason"] = "no crystal"
        elif not row["sensible"]:
            row["energy_reason"] = "no sensible cell"
        else:
            chosen[i] = entry.text
    found = collection_energies.collection_energies(
        list(chosen.values()),
        asked.model,
        options=asked.relaxing,
        device=asked.device,
        n_workers=asked.workers,
        executor=executor,
    )
    for i, one in zip(chosen, found, strict=True):
        row = rows[i]
        row |= {name: getattr(one, name) for name in ("energy", "energy_before", "converged", "rmsd")}
        row["energy_reason"] = one.reason or None
        if one.structure is None or one.energy is None:
            continue
        if asked.relaxing is not None:
            row["relaxed_cif"] = relaxation.to_cif(one.structure)
        if asked.hull is not None:
            try:
                row["e_above_hull"] = asked.hull.above(one.structure.composition, one.energy)
            except InputError as error:
                row["energy_reason"] = str(error)
    return rows


def compare(
    rows: Sequence[dict[str, Any]],
    texts: Iterable[str | None],
    asked: Asked,
    workers: int,
    on_done: Callable[[str, int, int], None],
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Rows with what is unique and novel, and how many known crystals there are; see `sun.compare`."""
    from crystallm.benchmarks import sun

    return sun.compare(rows, texts, asked.known, workers=workers, on_done=on_done)


@dataclass(frozen=True)
class EvaluationResult:
    """What rows add up to, with what it rests on.

    Attributes:
        found: the figures.
        asked: for what.
        counts: of known crystals, see `sun.compare`.
    """

    found: Sun
    asked: Asked
    counts: Mapping[str, int]

    def record(self) -> dict[str, Any]:
        """The same as JSON."""
        return self.found.record() | {"asked": self.asked.question(), **self.counts}


def told(rows: Sequence[Mapping[str, Any]], asked: Asked, counts: Mapping[str, int]) -> EvaluationResult:
    """What the rows add up to."""
    from crystallm.benchmarks import sun

    found = sun.summarise(
        rows,
        bound=asked.bound,
        energies=asked.model is not None,
        relaxed=asked.relaxing is not None,
        hull=asked.hull is not None,
        known=asked.known is not None,
    )
    return EvaluationResult(found, asked, counts)


def keep_counts(folder: Path, counts: Mapping[str, int]) -> None:
    """Write how many known crystals were seen, which no row says."""
    from crystallm.storage import files

    files.write_json(folder / COUNTS, dict(counts))


def counts_of(folder: Path) -> dict[str, int]:
    """How many known crystals a finished run has seen; nothing where the file has gone.

    Raises:
        CrystallmError: it cannot be read.
    """
    path = folder / COUNTS
    if not path.exists():
        return {}
    try:
        return {str(name): int(count) for name, count in json.loads(path.read_text("utf-8")).items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise CrystallmError(f"{str(path)!r} is broken ({error}): delete it") from None


def lines(found: Sun) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Cells of two tables: (what, crystals, %, interval), (what, n, median, interval, mean, interval)."""
    shares: list[tuple[str, ...]] = [
        (
            SHARES[name].format(bound=found.bound),
            f"{one.count:,}",
            f"{100 * one.share:.1f}",
            f"{100 * one.low:.1f} to {100 * one.high:.1f}",
        )
        for name, one in found.shares.items()
    ]
    spreads: list[tuple[str, ...]] = []
    for name, (what, digits) in SPREADS.items():
        one = getattr(found, name)
        if one is not None:
            values = (one.median, one.mean)
            ends = (one.median_interval, one.mean_interval)
            cells = [
                ("-", "-")
                if not one.n
                else (f"{value:.{digits}f}", " to ".join(f"{x:.{digits}f}" for x in interval))
                for value, interval in zip(values, ends, strict=True)
            ]
            spreads.append((what, f"{one.n:,}", *cells[0], *cells[1]))
    return shares, spreads


def notes(told: EvaluationResult) -> list[str]:
    """What there is to say below the tables."""
    said, counts = [], told.counts
    if counts:
        of = f"{counts['n_compared']:,} of them of a generated formula"
        said.append(f"novel: against {counts['n_known']:,} known crystals, {of}")
        if counts["n_unreadable"]:
            said.append(f"{counts['n_unreadable']:,} known crystals could not be read or compared")
    if told.asked.hull is not None and not told.asked.hull.models:
        said.append(
            f"whether the entries of {told.asked.hull_file!r} are energies of {told.asked.model} by the same "
            "method is not known: if not, nothing above follows"
        )
    return said + [f"  {n:,}  {reason}" for reason, n in told.found.reasons.items()]


SHARE_HEADS = ("energies and novelty", "crystals", "%", "95 %")

SPREAD_HEADS = ("over those that have one", "crystals", "median", "95 %", "mean", "95 %")


def show(told: EvaluationResult) -> None:
    """Print the tables."""
    from crystallm.cli import console as cli_console

    console = cli_console.page()
    for heads, cells in zip((SHARE_HEADS, SPREAD_HEADS), lines(told.found), strict=True):
        if not cells:
            continue
        table = cli_console.new_table()
        for i, head in enumerate(heads):
            table.add_column(head, justify="right" if i else "left")
        for line in cells:
            table.add_row(*line)
        console.print(table)
    for note in notes(told):
        console.print(cli_console.plain(note), highlight=False)


def report(page: HtmlReport, told: EvaluationResult, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add the tables, and how energies above the hull are spread, to a report."""
    page.heading("Energies and novelty")
    for heads, cells in zip((SHARE_HEADS, SPREAD_HEADS), lines(told.found), strict=True):
        if cells:
            page.table(heads, cells)
    for note in notes(told):
        page.paragraph(note)
    above = [row["e_above_hull"] for row in rows if row["e_above_hull"] is not None]
    if above:
        from crystallm.visualization import charts

        what = "energy above the hull, eV/atom"
        page.picture(charts.histogram({"all": above}, label=what), what.capitalize())


def _digest(path: Path) -> str:
    """Of a file's content: a hull with more entries is another one."""
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
