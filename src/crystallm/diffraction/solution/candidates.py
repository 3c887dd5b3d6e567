"""Patterns and candidates that options and formulas name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystallm.crystallography import formula as formulas
from crystallm.diffraction.radiation import TUBES, Radiation, radiation_of
from crystallm.diffraction.readers import read_pattern
from crystallm.errors import InputError
from crystallm.generation.analogues import AnalogueGenerator, CombinedGenerator
from crystallm.generation.generator import Generator
from crystallm.generation.request import Request, SamplingOptions, with_default_z
from crystallm.models.load import open_model
from crystallm.references.load import load_library

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor

    from crystallm.crystals.crystal import Crystal
    from crystallm.diffraction.options import PatternOptions, SolveOptions
    from crystallm.diffraction.pattern import PowderPattern
    from crystallm.models.model import Model
    from crystallm.references.options import ReferenceOptions

SHARE = 0.75
"""Share of the candidates that are made of known crystals, where both are used."""


def open_pattern(options: PatternOptions) -> tuple[PowderPattern, Radiation]:
    """Return the pattern of the options, and its radiation.

    Raises:
        InputError: no file, no pattern in it, or an unknown wavelength.
        CrystallmError: it cannot be read.
    """
    if options.pattern is None:
        raise InputError("no pattern: name its file, such as crystallm solve pattern.xy --formula TiO2")
    given = given_radiation(options)
    pattern = read_pattern(options.pattern, None if given is None else given.wavelength)
    radiation = given or radiation_of(default_wavelength(pattern), options.radiation)
    return pattern.within(options.two_theta_min, options.two_theta_max), radiation


def given_radiation(options: PatternOptions) -> Radiation | None:
    """Return the radiation that options name, if any. Raises InputError: an unknown wavelength."""
    return None if options.wavelength is None else radiation_of(options.wavelength, options.radiation)


def default_wavelength(pattern: PowderPattern) -> str:
    """Return the wavelength of a file, as a tube where it is that of one; CuKa if there is none."""
    if pattern.wavelength is None:
        return "CuKa"
    for symbol, (first, second) in TUBES.items():
        if first - 1e-3 <= pattern.wavelength <= second:
            return f"{symbol}Ka"
    return f"{pattern.wavelength}"


def requests_of(options: SolveOptions, known: ReferenceOptions | None = None) -> dict[str, Request]:
    """Return a request for each formula.

    Args:
        known: crystals whose formulas are tried, where the options name elements.

    Raises:
        InputError: there is no formula, or one is impossible.
        CrystallmError: a library cannot be loaded.
    """
    from crystallm.generation.interpretation import interpret

    if options.formula and options.elements:
        raise InputError("a formula and elements: give one or the other")
    names = [name.strip() for name in (options.formula or "").split(",") if name.strip()]
    if options.elements:
        names = _formulas_of(options.elements, known)
    if not names:
        raise InputError(
            "no formula: crystallm solve pattern.xy --formula TiO2, or --formula TiO2,Ti2O3, or "
            "--elements Ti,O"
        )
    found = {}
    for name in names:
        request = Request.build({"formula": name, "z": options.z, "space_group": options.space_group})
        request = with_default_z(request)
        try:
            interpret(request)
        except InputError:
            if not options.elements:  # those of known crystals need not all fill the space group
                raise
            continue
        found[name] = request
    if not found:
        raise InputError(f"elements = {options.elements!r}: no formula fits Z and the space group")
    return found


def _formulas_of(elements: str, known: ReferenceOptions | None) -> list[str]:
    """Return the formulas of known crystals of some elements."""
    symbols = formulas.system(elements)
    names = load_library(() if known is None else known.references).formulas_of(symbols)
    if not names:
        raise InputError(
            f"elements = {elements[:60]!r}: no known crystal has these elements alone: give a formula, or "
            "more crystals with --references"
        )
    return names


def candidates_of(
    request: Request,
    sampling: SamplingOptions,
    known: ReferenceOptions,
    n: int,
    *,
    executor: Executor | None = None,
    model: Model | None = None,
) -> Iterator[Crystal]:
    """Return at most n candidates of a formula: made of known crystals, then sampled.

    Args:
        model: that samples; None: the one of the options, its network read when it is needed.

    Raises:
        InputError: an impossible request.
        CrystallmError: a library or a model cannot be loaded.
    """
    asked = [request.model_copy(update={"n": n})]
    if known.crystals_from == "references":
        analogues = AnalogueGenerator(load_library(known.references), asked, sampling, executor=executor)
        return iter(next(analogues.generate([0])))
    model = model or open_model(sampling.model, device=sampling.device, dtype=sampling.dtype)
    if known.crystals_from == "network":
        return iter(next(Generator(model, asked, sampling, executor=executor).generate([0])))
    library = load_library(known.references)
    return CombinedGenerator(model, library, asked, sampling, share=SHARE, executor=executor).crystals(0)
