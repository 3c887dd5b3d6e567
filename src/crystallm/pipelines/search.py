"""A search in a run folder: its log, CIFs, tables and plots. Resumes from the log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from crystallm.crystallography import formula as formulas
from crystallm.crystals import annotation, table
from crystallm.energy.registry import require
from crystallm.errors import InputError
from crystallm.execution.pool import ProcessPool
from crystallm.generation.analogues import library_of, resolve_source
from crystallm.generation.generator import Generator
from crystallm.generation.interpretation import interpret
from crystallm.generation.request import CellOptions, Request, with_default_z
from crystallm.models.load import load_model
from crystallm.pipelines.samples import known_facts
from crystallm.references.options import ReferenceOptions
from crystallm.storage import files, run_folder
from crystallm.storage import tables as storage_tables
from crystallm.structure_search.api import best_first, best_so_far
from crystallm.structure_search.options import BOUNDS, SearchOptions, sampling_of
from crystallm.structure_search.search import Search
from crystallm.thermodynamics.hull import Hull
from crystallm.visualization import charts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from crystallm.crystals.crystal import Crystal
    from crystallm.energy.options import RelativeEnergyOptions
    from crystallm.generation.interpretation import InterpretedRequest
    from crystallm.generation.request import SamplingOptions
    from crystallm.models.model import Model
    from crystallm.pipelines.options import SearchRunOptions
    from crystallm.structure_search.results import SearchSample, State

    Show = Callable[[str], AbstractContextManager[Callable[[State], None]]]
    """Opens what shows the progress of a search of this name."""

LABELS = {"elites": "search", "tree": "tree search", "sampling": "sampling"}
"""What a method is called in plots and while it runs."""
LOG, SUMMARY = "search.jsonl", "search.json"
COLUMNS = table.COLUMNS | {
    "simulation": "int32", "move": "string", "call": "int32", "equals": "int32", "seconds": "float64",
    "objective": "float64",
}  # fmt: skip


class SearchResult(NamedTuple):
    """Rows of the distinct crystals, best first, and a summary as in search.json."""

    rows: list[dict[str, Any]]
    summary: dict[str, Any]


def run(
    cell: CellOptions,
    options: SearchOptions,
    sampling: SamplingOptions,
    relative: RelativeEnergyOptions,
    run_options: SearchRunOptions,
    *,
    known: ReferenceOptions | None = None,
    workers: int = 1,
    show: Show,
) -> SearchResult:
    """Search for the crystals of lowest energy, then run the baseline if there is one.

    Raises:
        InputError: options that are out of range or exclude each other, or an impossible request.
        CrystallmError: a model cannot be loaded, a file cannot be read or written.
    """
    if cell.formula is None:
        raise InputError("search for what? Give a formula: crystallm search TiO2 --z 2")
    sampling = sampling_of(options, sampling)
    request = with_default_z(Request.build(cell.model_dump(exclude_unset=True)))
    if options.needs_energy:
        require(options.energy)
    elif relative.formation_energy or relative.hull is not None:
        raise InputError(
            f"objective = {' '.join(options.objective)!r} without energy: relative energies need it"
        )
    interpreted = interpret(request, fitting=sampling.constraints == "full")
    if relative.hull is not None:
        _check_hull(Path(relative.hull), interpreted)
    if run_options.out is not None:
        files.check_place(run_options.out)
    known = resolve_source(known, sampling.model, usable=options.method == "elites")
    model = load_model(sampling.model, device=sampling.device, dtype=sampling.dtype)
    Generator(model, [interpreted], sampling).check()
    name = LABELS[options.method]
    arms: dict[str, _Arm] = {name: _Arm(name, options, run_options.out)}
    if run_options.baseline is not None:
        folder = None if run_options.out is None else run_options.out / "sampling"
        arms["plain sampling"] = _Arm("plain sampling", options.baseline(), folder)
    samples: dict[str, Sequence[SearchSample]] = {}
    results: list[SearchResult] = []
    with ProcessPool(workers) as pool:
        for name, arm in arms.items():
            search = arm.prepare(model, request, sampling, known, workers)
            search.executor = pool
            with show(name) as advance:
                arm.search(search, advance)
            samples[name] = search.samples
            results.append(_finish(search, arm.folder, relative))
    if run_options.out is not None:
        _draw(samples, run_options.out, options.objective)
    result = results[0]
    if len(results) > 1:
        result = SearchResult(result.rows, result.summary | {"baseline": results[1].summary})
        if run_options.out is not None:
            files.write_json(run_options.out / SUMMARY, result.summary)
    return result


def _check_hull(path: Path, request: InterpretedRequest) -> None:
    """Reject entries that are invalid or lack an element before anything is sampled."""
    entries = Hull(path)
    for cell in (request.cell, *request.cells):
        if cell is not None:
            entries.require(symbol for symbol, _ in cell.composition)


def _aside(options: SearchOptions) -> set[str]:
    """Return the options under which a search may be continued, or which are new and at their default."""
    new = {name for name in ("objective", "measured") if name not in options.model_fields_set}
    return {*BOUNDS, "energy_timeout"} | new


@dataclass(frozen=True)
class _Arm:
    """One of the searches of a run, with its folder."""

    name: str
    options: SearchOptions
    folder: Path | None

    def prepare(
        self,
        model: Model,
        request: Request,
        sampling: SamplingOptions,
        known: ReferenceOptions,
        workers: int,
    ) -> Search:
        """Return the search, as far as its log has it."""
        path = None
        if self.folder is not None:
            path = self.folder / LOG
            if path.exists() and not (self.folder / run_folder.CONFIG).exists():
                raise InputError(f"{path} is of another origin: choose another folder with --out")
            configuration = self._configuration(model, request, sampling, known)
            run_folder.RunFolder(self.folder, configuration, COLUMNS).open()
        return Search(model, request, self.options, sampling, path, workers, library=library_of(known))

    def _configuration(
        self, model: Model, request: Request, sampling: SamplingOptions, known: ReferenceOptions
    ) -> dict[str, Any]:
        """Return the configuration of the run, without the limits, under which it may be continued."""
        return run_folder.RunFolder.configuration(
            "search",
            sampling,
            weights=model.fingerprint,
            request=request.model_dump(exclude={"n", "prompt"}),
            search=self.options.model_dump(mode="json", exclude=_aside(self.options)),
            **known_facts(known),
        )

    def search(self, search: Search, advance: Callable[[State], None]) -> None:
        """Run the search, and write each new crystal as a CIF."""

        def on_round(state: State, samples: Sequence[SearchSample]) -> None:
            advance(state)
            for sample in samples if self.folder is not None else ():
                _write_cif(self.folder, sample)  # type: ignore[arg-type]

        search.run(on_round=on_round)


def _file_name(sample: SearchSample) -> str | None:
    """Return the name of a crystal's CIF; None for implausible crystals and repeats."""
    crystal = sample.crystal
    if not crystal.validity.plausible or sample.equals is not None:
        return None
    formula = formulas.of_atoms(crystal.structure.composition.get_el_amt_dict())
    return f"{formula}-sg{crystal.space_group_number}-{sample.call or 0:05d}.cif"


def _write_cif(folder: Path, sample: SearchSample) -> None:
    name = _file_name(sample)
    if name is not None and not (folder / "cifs" / name).exists():
        files.write_atomically(folder / "cifs" / name, sample.crystal.cif.encode(), sync=False)


def _finish(search: Search, folder: Path | None, relative: RelativeEnergyOptions) -> SearchResult:
    """Rank and store the results, then compute relative energies, which may fail, and store them too."""
    ranked = best_first(search.samples)
    result = _store(search, ranked, folder)
    if not (relative.formation_energy or relative.hull is not None):
        return result
    annotation.add_relative_energies(
        [sample.crystal for sample in search.samples],
        search.options.energy,
        formation=relative.formation_energy,
        hull=relative.hull,
        device=search.settings.device,
        executor=search.executor,
    )
    return _store(search, ranked, folder)


def _store(search: Search, ranked: Sequence[Crystal], folder: Path | None) -> SearchResult:
    rows = [_row(search.request, index, sample) for index, sample in enumerate(search.samples)]
    index_of = {id(sample.crystal): index for index, sample in enumerate(search.samples)}
    best = [rows[index_of[id(crystal)]] for crystal in ranked]
    summary = _summary(search, len(best))
    if folder is not None:
        files.write_atomically(folder / run_folder.RESULTS, storage_tables.as_parquet(rows, COLUMNS))
        files.write_json(folder / SUMMARY, summary)
    return SearchResult(best, summary)


def _row(request: Request, index: int, sample: SearchSample) -> dict[str, Any]:
    row = (
        sample.crystal.row()
        | table.request_columns(request)
        | {
            "request": 0,
            "sample": index,
            "simulation": sample.simulation,
            "move": sample.move,
            "call": sample.call,
            "equals": sample.equals,
            "seconds": sample.seconds,
            "objective": sample.crystal.objective,
            "file": _file_name(sample),
        }
    )
    return {name: row.get(name) for name in COLUMNS}


def _summary(search: Search, n_distinct: int) -> dict[str, Any]:
    state = search.state
    failed = [s.crystal.energy_reason for s in search.samples if s.call and s.crystal.objective is None]
    return {
        "note": search.note,
        "method": search.options.method,
        "simulations": state.simulations,
        "energy_calls": state.calls,
        "texts": state.texts,
        "plausible": state.plausible,
        "distinct": n_distinct,
        "lowest": state.best,
        "objective": list(search.options.objective),
        "seconds": state.seconds,
        "without_energy": len(failed),
        "why": failed[-1] if failed else None,
        "stopped": search.stopped or None,
    }


def _draw(samples: Mapping[str, Sequence[SearchSample]], folder: Path, objective: tuple[str, ...]) -> None:
    """Plot the lowest value so far over energy calls and over time."""
    what = "lowest energy (eV/atom)" if objective == ("energy",) else f"lowest {' '.join(objective)}"
    for name, label, by in (("calls", "energy calls", False), ("seconds", "seconds", True)):
        points = {arm: best_so_far(of_arm, seconds=by) for arm, of_arm in samples.items()}
        picture = charts.curves(points, labels=(label, what))
        files.write_atomically(folder / f"best_by_{name}.png", picture)
