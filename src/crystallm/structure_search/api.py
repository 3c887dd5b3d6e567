"""search(): the Python interface."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Literal

from crystallm.errors import InputError
from crystallm.generation.interpretation import interpret
from crystallm.generation.request import Request, SamplingOptions, with_default_z
from crystallm.options import validated
from crystallm.structure_search.options import split
from crystallm.structure_search.search import LOG, Search

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from crystallm.crystals.crystal import Crystal
    from crystallm.models.model import Model
    from crystallm.structure_search.search import SearchSample


def best_first(found: Sequence[SearchSample]) -> list[Crystal]:
    """The valid crystals with an energy, each once, equal ones folded (see `answers`), the lowest first.

    Sets their clusters and ranks.
    """
    from crystallm.crystals import ranking

    crystals = [one.crystal for one in found if one.equals is None and one.crystal.energy is not None]
    ranking.rank([crystals], "energy")
    ranked = sorted((c for c in crystals if c.rank is not None), key=lambda crystal: crystal.rank or 0)
    n_distinct = len({crystal.cluster for crystal in ranked})
    return ranked[:n_distinct]


def best_so_far(found: Sequence[SearchSample], *, seconds: bool = False) -> list[tuple[float, float]]:
    """The lowest energy so far by energy calls, or by seconds: where it fell, and the end.

    Args:
        found: by a search.
        seconds: by these.
    """
    points: list[tuple[float, float]] = []
    last = 0.0
    for one in found:
        if one.call is None:
            continue
        last = one.seconds if seconds else float(one.call)
        energy = one.crystal.energy
        if energy is not None and (not points or energy < points[-1][1]):
            points += [(last, points[-1][1])] if points else []
            points.append((last, energy))
    return [*points, (last, points[-1][1])] if points else []


def search(
    formula: str,
    *,
    z: int | Literal["auto"] | None = None,
    space_group: int | str | None = None,
    simulations: int | None = None,
    energy_calls: int | None = None,
    minutes: float | None = None,
    energy: str = "chgnet",
    recipe: str = "ours",
    model: str | os.PathLike[str] | Model = "default",
    temperature: float = 1.0,
    seed: int | None = None,
    constraints: Literal["full", "syntax", "none"] = "full",
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    workers: int = 1,
    **options: Any,
) -> list[Crystal]:
    """Search for crystals of low energy.

    Args:
        formula: as for `generate`, as are z and space_group.
        z: likewise.
        space_group: likewise.
        simulations: stop after so many; 200 if nothing bounds the search.
        energy_calls: stop after so many crystals whose energy was asked.
        minutes: stop after so long.
        energy: energy model, `chgnet` or any ASE calculator as `module:factory`.
        recipe: `ours`, or `paper`, the tree search of the paper.
        model: as for `generate`, as are temperature, seed, constraints, device and dtype.
        temperature: likewise.
        seed: likewise.
        constraints: likewise.
        device: likewise; of the energy model, too.
        dtype: likewise.
        workers: processes with the energy model.
        **options: any of `search_options.Options` and `generation.Settings`.

    Returns:
        Valid crystals with an energy, each structure once, the lowest energy first.

    Raises:
        InputError: a formula or group that is none, a cell that cannot fill the group, an option out of its
            range.
        CrystallmError: there is no such model, or one that cannot be loaded.
    """
    from crystallm.energy.registry import require
    from crystallm.models.load import load_model
    from crystallm.models.model import Model

    given = {
        "simulations": simulations, "energy_calls": energy_calls, "minutes": minutes, "energy": energy,
        "model": model.name if isinstance(model, Model) else str(model), "temperature": temperature,
        "seed": secrets.randbits(63) if seed is None else seed, "constraints": constraints, "device": device,
        "dtype": dtype,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    how, rest = split(recipe, given | options)  # None of `top_k` stands for all tokens
    settings = validated(SamplingOptions, rest)
    request = with_default_z(validated(Request, {"formula": formula, "z": z, "space_group": space_group}))
    if workers < 1:
        raise InputError(f"{workers=} must be 1 or more")
    require(how.energy)
    interpret(request, fitting=constraints == "full")  # before a model is loaded, which takes longer
    loaded = model if isinstance(model, Model) else load_model(model, device=device, dtype=dtype)
    run = Search(loaded, request, how, settings, workers=workers)
    found = run.run()
    if run.stopped:
        LOG.warning("%s: the search ended early: %s", formula, run.stopped)
    return best_first(found)
