"""search(): the Python interface."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from crystallm.crystals.crystal import Crystal
from crystallm.errors import InputError
from crystallm.generation.analogues import library_of, resolve_source
from crystallm.generation.generate import formula_text, sampling_options
from crystallm.generation.interpretation import interpret
from crystallm.generation.request import Request, SamplingOptions, with_default_z
from crystallm.models.model import Model
from crystallm.references.options import ReferenceOptions
from crystallm.structure_search.options import Preset, SearchOptions, sampling_of
from crystallm.structure_search.results import SearchSample
from crystallm.structure_search.search import LOG, Search

if TYPE_CHECKING:
    from pymatgen.core import Composition, Structure


def best_first(samples: Sequence[SearchSample]) -> list[Crystal]:
    """Return the distinct crystals that have an objective, the lowest first; set their clusters and ranks."""
    from crystallm.crystals import ranking

    crystals = [s.crystal for s in samples if s.equals is None and s.crystal.objective is not None]
    ranking.rank([crystals], "energy")
    ranked = sorted((c for c in crystals if c.rank is not None), key=lambda crystal: crystal.rank or 0)
    n_distinct = len({crystal.cluster for crystal in ranked})
    return ranked[:n_distinct]


def best_so_far(samples: Sequence[SearchSample], *, seconds: bool = False) -> list[tuple[float, float]]:
    """Return the steps of the lowest objective so far, and the end of the search.

    Args:
        seconds: over seconds instead of energy calls.
    """
    points: list[tuple[float, float]] = []
    last = 0.0
    for sample in samples:
        if sample.call is None:
            continue
        last = sample.seconds if seconds else float(sample.call)
        value = sample.crystal.objective
        if value is not None and (not points or value < points[-1][1]):
            points += [(last, points[-1][1])] if points else []
            points.append((last, value))
    return [*points, (last, points[-1][1])] if points else []


def search(
    formula: str | Composition | Structure,
    *,
    z: int | Literal["auto"] | None = None,
    space_group: int | str | None = None,
    simulations: int | None = None,
    energy: str = "chgnet",
    model: str | os.PathLike[str] | Model = "default",
    temperature: float = 1.0,
    seed: int | None = 0,
    constraints: Literal["full", "syntax", "none"] = "full",
    device: str = "auto",
    workers: int = 1,
    preset: Preset = "default",
    settings: SamplingOptions | None = None,
    options: SearchOptions | None = None,
    known: ReferenceOptions | None = None,
) -> list[Crystal]:
    """Search for crystals of low energy.

    Args:
        formula: one, as for `generate`, as are z and space_group.
        z: likewise.
        space_group: likewise.
        simulations: stop after this number; 200 if there is no other limit.
        energy: energy model, `chgnet` or any ASE calculator as `module:factory`.
        model: as for `generate`, as are temperature, seed, constraints and device.
        temperature: likewise.
        seed: likewise.
        constraints: likewise.
        device: likewise; of the energy model, too.
        workers: processes with the energy model.
        preset: `default`, or `paper`, the tree search of the paper.
        settings: all sampling options; of the arguments above, those that are not at their default win.
        options: all options of the search, likewise.
        known: whether the first crystals are made of known ones; by default with the bundled model.

    Returns:
        Valid crystals with an energy, each structure once, the lowest energy first.

    Raises:
        InputError: an impossible formula or group, a cell that is incompatible with the group, an option out
            of its range.
        CrystallmError: a model does not exist or cannot be loaded.
    """
    from crystallm.energy.registry import require
    from crystallm.models.load import load_model
    from crystallm.models.model import Model

    given = {} if options is None else options.model_dump(exclude_unset=True)
    given |= {} if simulations is None else {"simulations": simulations}
    given |= {} if preset == "default" else {"preset": preset}
    given |= {} if energy == "chgnet" else {"energy": energy}
    sampling = sampling_options(
        settings,
        model=model.name if isinstance(model, Model) else str(model),
        temperature=temperature,
        seed=seed,
        constraints=constraints,
        device=device,
    )
    options = SearchOptions.build(given)
    sampling = sampling_of(options, sampling)
    name = formula_text(formula)
    request = with_default_z(Request.build({"formula": name, "z": z, "space_group": space_group}))
    if workers < 1:
        raise InputError(f"{workers=} must be 1 or more")
    if options.needs_energy:
        require(options.energy)
    # Before a model is loaded, which takes longer.
    interpret(request, fitting=sampling.constraints == "full")
    if not isinstance(model, Model):
        model = load_model(sampling.model, device=sampling.device, dtype=sampling.dtype)
    known = resolve_source(known, sampling.model, usable=options.method == "elites")
    run = Search(model, request, options, sampling, workers=workers, library=library_of(known))
    samples = run.run()
    if run.stopped:
        LOG.warning("%s: the search ended early: %s", name, run.stopped)
    return best_first(samples)
