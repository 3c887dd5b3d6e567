"""generate(): the Python interface."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

from crystallm.crystals.annotation import missing_energies
from crystallm.crystals.selection import SelectionOptions
from crystallm.errors import InputError
from crystallm.execution.pool import ProcessPool
from crystallm.generation.analogues import library_of, make_generator, resolve_source
from crystallm.generation.generator import LOG, count_valid
from crystallm.generation.interpretation import interpret
from crystallm.generation.request import Request, SamplingOptions, with_default_z
from crystallm.language import get_language
from crystallm.references.options import ReferenceOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Executor
    from typing import Unpack

    from pymatgen.core import Composition, Structure

    from crystallm.crystals.crystal import Crystal
    from crystallm.models.model import Model

    Formula = str | Composition | Structure
    Formulas = list[str] | list[Composition] | list[Structure] | list[Formula] | tuple[Formula, ...]

    class _Options(TypedDict, total=False):
        """Arguments of `generate` beside the formula."""

        z: int | Literal["auto"] | None
        space_group: int | str | None
        n: int
        model: str | os.PathLike[str] | Model
        temperature: float
        top_k: int | None
        seed: int | None
        constraints: Literal["full", "syntax", "none"]
        device: str
        elements: str | None
        allow_fewer_elements: bool
        template: Structure | str | os.PathLike[str] | None
        prompt: str | None
        conditions: Mapping[str, float | tuple[float, float]] | Sequence[str] | None
        guidance: float
        settings: SamplingOptions | None
        selection: SelectionOptions | None
        known: ReferenceOptions | None


@overload
def generate(formula: Formula | None = ..., **options: Unpack[_Options]) -> list[Crystal]: ...


@overload
def generate(formula: Formulas, **options: Unpack[_Options]) -> list[list[Crystal]]: ...


def generate(
    formula: Formula | Formulas | None = None,
    *,
    z: int | Literal["auto"] | None = None,
    space_group: int | str | None = None,
    n: int = 10,
    model: str | os.PathLike[str] | Model = "default",
    temperature: float = 1.0,
    top_k: int | None = 10,
    seed: int | None = 0,
    constraints: Literal["full", "syntax", "none"] = "full",
    device: str = "auto",
    elements: str | None = None,
    allow_fewer_elements: bool = False,
    template: Structure | str | os.PathLike[str] | None = None,
    prompt: str | None = None,
    conditions: Mapping[str, float | tuple[float, float]] | Sequence[str] | None = None,
    guidance: float = 2.0,
    settings: SamplingOptions | None = None,
    selection: SelectionOptions | None = None,
    known: ReferenceOptions | None = None,
) -> list[Crystal] | list[list[Crystal]]:
    """Generate crystals for a formula, or for each of a list.

    Args:
        formula: such as `TiO2` or `(NH4)2SO4`, a composition, or a structure, of which the reduced formula
            counts; None: the model chooses the composition. A list or tuple of these is generated in common
            batches, as `crystallm generate --requests` does.
        z: formula units (of the reduced formula) in the conventional cell; `auto`: samples are spread over
            likely values; None: `auto` for a reduced formula, `TiO2`, and the cell as written for a multiple
            of one, `Ti2O4`.
        space_group: number or symbol; None: the model chooses; `auto`: samples are spread over likely groups.
        n: number of crystals of a formula.
        model: name of a bundled model, a path, or a loaded model.
        temperature: divides the logits; 0 takes the most likely token.
        top_k: sample from the k most likely tokens; None: from all.
        seed: the same seed gives the same crystals (in float32), and it is 0 here as on the command line;
            None draws one, which `crystal.source` has.
        constraints: `full`, `syntax` or `none`; see `SamplingOptions`.
        device: of the network, unless the model is loaded already.
        elements: a chemical system, `Li-Fe-O`, in place of a formula: the model chooses the counts.
        allow_fewer_elements: some of these elements may be missing.
        template: a structure, or a file of one, whose space group and Wyckoff positions to keep, with the
            elements of the formula; in place of z and space_group.
        prompt: start of a token sequence in the model's language, in place of all these.
        conditions: values or ranges of properties that the model was trained with, such as
            `{"density": 5.2, "band_gap": (1.2, 1.8)}`.
        guidance: strength of the conditions; see `SamplingOptions`.
        settings: all sampling options; of the arguments above, those that are not at their default win.
        selection: which crystals to keep, how to rank them, and energies; by default all, in the order of
            their samples.
        known: whether crystals are sampled, made of known ones, or both; by default half of each with the
            bundled model, else sampled. Without a network, crystals come by falling probability, and
            fewer than n if there are fewer relatives.

    Returns:
        n crystals in the order of their samples, or ranked; of several formulas a list for each. Some may be
        broken or invalid, see `crystal.validity`. Fewer if `only_valid` reaches its limit, or if fewer than
        `best` are distinct, which is logged.

    Raises:
        InputError: an impossible formula or group, a cell that is incompatible with the group, an option out
            of its range.
        CheckpointError: there is no such model.
    """
    from crystallm.models.load import open_model
    from crystallm.models.model import Model

    formulas = list(formula) if isinstance(formula, (list, tuple)) else [formula]
    names = [formula_text(each) for each in formulas]
    if template is not None and (None in names or (z, space_group, prompt, elements) != (None,) * 4):
        raise InputError("template takes a formula, and neither z nor space_group nor elements nor prompt")
    common = {
        "z": z, "space_group": space_group, "n": n, "prompt": prompt,
        "elements": elements, "allow_fewer_elements": allow_fewer_elements, "conditions": conditions,
    }  # fmt: skip
    requests = [with_default_z(Request.build({"formula": name} | common)) for name in names]
    selection = SelectionOptions() if selection is None else selection
    settings = sampling_options(
        settings,
        model=model.name if isinstance(model, Model) else str(model),
        temperature=temperature,
        top_k=top_k,
        guidance=guidance,
        seed=seed,
        constraints=constraints,
        device=device,
    )
    if selection.energy is not None:
        from crystallm.energy.registry import require

        require(selection.energy)
    # Before a model is loaded, which takes longer.
    for request in requests:
        interpret(request, fitting=settings.constraints == "full")
    known = resolve_source(known, settings.model, usable=None not in names)
    library = library_of(known)
    network = model if isinstance(model, Model) and known.crystals_from != "references" else None
    if known.crystals_from != "references" and network is None:
        network = open_model(settings.model, device=settings.device, dtype=settings.dtype)
    if template is not None:
        from crystallm.generation import template as templates

        if isinstance(template, (str, os.PathLike)):
            template = templates.read(template)
        language = get_language("orbits") if network is None else network.language
        prompts = [templates.template_prompt(template, str(name), language) for name in names]
        requests = [
            Request(prompt=language.text(ids), n=n, conditions=request.conditions)
            for ids, request in zip(prompts, requests, strict=True)
        ]
    with ProcessPool(os.cpu_count() or 1) as pool:
        generator = make_generator(
            network, requests, settings, selection, library, reading=known.reading, executor=pool
        )
        sample = generator.generate_valid if selection.only_valid else generator.generate
        crystals = list(sample(range(len(requests))))
        _annotate(crystals, selection, device=settings.device, executor=pool)
    kept = [_select(of_one, selection) for of_one in crystals]
    for name, of_one, selected in zip(names, crystals, kept, strict=True):
        _warn(name or elements or "no formula", n, of_one, selected, selection)
    return kept if isinstance(formula, (list, tuple)) else kept[0]


def _warn(
    name: str, n: int, crystals: list[Crystal], kept: list[Crystal], selection: SelectionOptions
) -> None:
    """Log where fewer crystals than requested are plausible or distinct, or some have no energy."""
    if selection.only_valid and (n_plausible := count_valid(crystals)) < n:
        LOG.warning(
            "%s: %d of %d crystals are plausible after %d attempts", name, n_plausible, n, len(crystals)
        )
    if selection.best is not None and len(kept) < selection.best:
        LOG.warning("%s: distinct crystals: %d, fewer than the best %d", name, len(kept), selection.best)
    if said := missing_energies([(crystal.energy, crystal.energy_reason) for crystal in crystals]):
        LOG.warning("%s: %s", name, said)


def formula_text(formula: Any) -> str | None:
    """Return a formula, a composition or the composition of a structure as text; None for none.

    Raises:
        InputError: it is of another type.
    """
    if formula is None or isinstance(formula, str):
        return formula
    composition = getattr(formula, "composition", None)
    if composition is not None:  # of a structure, in whichever cell
        return str(composition.reduced_formula)
    if hasattr(formula, "get_el_amt_dict"):
        return "".join(f"{symbol}{amount:g}" for symbol, amount in formula.get_el_amt_dict().items())
    raise InputError(
        f"a formula of type {type(formula).__name__}: give 'TiO2', a Composition or a Structure; generate() "
        "takes a list of these, too"
    )


def sampling_options(settings: SamplingOptions | None, **arguments: Any) -> SamplingOptions:
    """Return sampling options with the everyday arguments that are not at their default.

    Args:
        settings: given; None for the defaults.
        arguments: fields of SamplingOptions; a `seed` of None draws one.

    Raises:
        InputError: an argument out of its range.
    """
    fields = SamplingOptions.model_fields
    changed = {
        name: value
        for name, value in arguments.items()
        if value != fields[name].default and (name, value) != ("seed", None)
    }
    if arguments["seed"] is None:
        changed["seed"] = secrets.randbits(63)
    given = {} if settings is None else settings.model_dump(exclude_unset=True)
    return SamplingOptions.build(given | changed)


def _annotate(
    requests: list[list[Crystal]], selection: SelectionOptions, *, device: str, executor: Executor
) -> None:
    """Check, compute energies and rank the crystals of each request as the options say."""
    from crystallm.crystals import annotation, ranking

    if selection.ranking is not None:
        crystals = [crystal for of_one in requests for crystal in of_one]
        if not selection.only_valid:
            annotation.validate(crystals, executor)
        annotation.add_energies(crystals, selection, device=device, executor=executor)
        ranking.rank(requests, selection.ranking, executor=executor)


def _select(crystals: list[Crystal], selection: SelectionOptions) -> list[Crystal]:
    """Select crystals as the options say."""
    from crystallm.crystals import ranking

    if selection == SelectionOptions():
        return crystals
    kept = ranking.selected(
        [crystal.rank for crystal in crystals],
        [crystal.cluster for crystal in crystals],
        [crystal.validity.plausible for crystal in crystals],
        selection,
    )
    return [crystals[i] for i in kept]
