"""generate(): the Python interface."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Literal

from crystallm.errors import InputError
from crystallm.generation.generator import LOG, Generator, count_valid
from crystallm.generation.interpretation import interpret
from crystallm.generation.request import Request, SamplingOptions, with_default_z
from crystallm.options import validated

if TYPE_CHECKING:
    import os

    from pymatgen.core import Structure

    from crystallm.crystals.crystal import Crystal
    from crystallm.crystals.selection import Ranking
    from crystallm.models.model import Model


def generate(
    formula: str | None = None,
    *,
    z: int | Literal["auto"] | None = None,
    space_group: int | str | None = None,
    elements: str | None = None,
    elements_subset: bool = False,
    like: Structure | None = None,
    prompt: str | None = None,
    n: int = 10,
    valid: bool = False,
    max_tries: int | None = None,
    rank: Ranking | None = None,
    best: int | None = None,
    energy: str | None = None,
    relax: bool = False,
    formation: bool = False,
    hull: str | None = None,
    model: str | os.PathLike[str] | Model = "default",
    temperature: float = 1.0,
    top_k: int | None = 10,
    top_p: float | None = None,
    seed: int | None = None,
    constraints: Literal["full", "syntax", "none"] = "full",
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    batch_size: int = 32,
) -> list[Crystal]:
    """Write crystals for a formula.

    Args:
        formula: as people write it, `TiO2`, `(NH4)2SO4`; None leaves the composition to the network.
        z: formula units (of the reduced formula) in the conventional cell; `auto`: samples are spread over
            the numbers that the network finds likely; None: so it is for a reduced formula, `TiO2`, and a
            multiple of one, `Ti2O4`, is the cell as written.
        space_group: number or symbol; None leaves it to the network; `auto`: samples are spread over the
            groups that the network finds likely.
        elements: a chemical system, `Li-Fe-O`, in place of a formula: the network chooses how many atoms of
            each.
        elements_subset: let some of these be left out.
        like: a structure whose space group and Wyckoff positions to keep, with the elements of the formula;
            in place of z and space_group.
        prompt: any beginning of a text in the model's language, in place of all these.
        n: how many.
        valid: keep the valid ones only, and write on until there are n.
        max_tries: crystals to write for that, at most; None: ten times n.
        rank: `agreement`, `likelihood`, `both` or `energy`: fold equal crystals and put the best first (see
            `answers`).
        best: keep so many distinct ones, the best. Ranks by agreement unless told otherwise.
        energy: ask this energy model, `chgnet` or any ASE calculator as `module:factory`, about the crystals;
            ranks by energy unless told otherwise.
        relax: relax the crystals with it first.
        formation: tell formation energies, too.
        hull: tell how far the crystals stand above the hull of the entries in this file.
        model: name of a bundled model, a path, or a model loaded before.
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_k: sample from the k likeliest tokens; None for all.
        top_p: sample from the likeliest tokens that together hold this probability; None for all.
        seed: the same seed gives the same crystals (in float32); None draws one, kept in `crystal.source`.
        constraints: `full`, `syntax` or `none`; see `Settings`.
        device: where the network runs, unless it is loaded already.
        dtype: arithmetic of the network, likewise; see `Settings`.
        batch_size: crystals written at a time.

    Returns:
        n crystals in the order of their samples, or ranked. Some may be broken or not valid:
        `crystal.validity` says so. Fewer with `best`, or if `valid` has come to its bound, which is logged.

    Raises:
        InputError: a formula or group that is none, a cell that cannot fill the group, an option out of its
            range.
        CheckpointError: there is no such model.
    """
    from crystallm.crystals import annotation, ranking
    from crystallm.crystals import selection as crystals_selection
    from crystallm.models.load import load_model
    from crystallm.models.model import Model

    asked: dict[str, Any] = {
        "formula": formula, "z": z, "space_group": space_group, "n": n, "prompt": prompt,
        "elements": elements, "elements_subset": elements_subset,
    }  # fmt: skip
    if like is not None and (formula is None or (z, space_group, prompt, elements) != (None,) * 4):
        raise InputError("like takes a formula, and neither z nor space_group nor elements nor prompt")
    request = with_default_z(validated(Request, asked))
    selection = validated(
        crystals_selection.SelectionOptions,
        {
            "valid": valid,
            "max_tries": max_tries,
            "rank": rank,
            "best": best,
            "energy": energy,
            "relax": relax,
            "formation": formation,
            "hull": hull,
        },
    )
    settings = validated(
        SamplingOptions,
        {
            "model": model.name if isinstance(model, Model) else str(model),
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "seed": secrets.randbits(63) if seed is None else seed,
            "constraints": constraints,
            "device": device,
            "dtype": dtype,
            "batch_size": batch_size,
        },
    )
    if energy is not None:
        from crystallm.energy.registry import require

        require(energy)
    interpret(request, fitting=constraints == "full")  # before a model is loaded, which takes longer
    loaded = model if isinstance(model, Model) else load_model(model, device=device, dtype=dtype)
    if like is not None:
        from crystallm.generation import template

        begun = loaded.language.text(template.like(like, str(formula), loaded.language))
        request = Request(prompt=begun, n=n)
    generator = Generator(loaded, [request], settings, selection)
    (crystals,) = generator.write_valid([0]) if valid else generator.write([0])
    if valid and count_valid(crystals) < n:
        LOG.warning(
            "%s: %d of %d crystals are valid after %d tries",
            formula or elements or "no formula",
            count_valid(crystals),
            n,
            len(crystals),
        )
    if selection.ranking is not None:
        if not valid:
            annotation.validate(crystals)
        if energy is not None:
            annotation.compute_energies(crystals, energy, relax=relax, device=settings.device)
            annotation.add_relative_energies(
                crystals, energy, formation=formation, hull=hull, device=settings.device
            )
        ranking.rank([crystals], selection.ranking)
    if selection == crystals_selection.SelectionOptions():
        return crystals
    kept = ranking.selected(
        [crystal.rank for crystal in crystals],
        [crystal.cluster for crystal in crystals],
        [crystal.validity.valid for crystal in crystals],
        selection,
    )
    return [crystals[i] for i in kept]
