"""Patterns and candidates that options and formulas name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystallm.diffraction.radiation import TUBES, Radiation, radiation_of
from crystallm.diffraction.readers import read_pattern
from crystallm.errors import InputError
from crystallm.generation.analogues import AnalogueGenerator, CombinedGenerator
from crystallm.generation.generator import Generator
from crystallm.generation.request import Request, SamplingOptions, with_default_z
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
    given = None if options.wavelength is None else radiation_of(options.wavelength, options.radiation)
    pattern = read_pattern(options.pattern, None if given is None else given.wavelength)
    radiation = given or radiation_of(default_wavelength(pattern), options.radiation)
    return pattern.within(options.two_theta_min, options.two_theta_max), radiation


def default_wavelength(pattern: PowderPattern) -> str:
    """Return the wavelength of a file, as a tube where it is that of one; CuKa if there is none."""
    if pattern.wavelength is None:
        return "CuKa"
    for symbol, (first, second) in TUBES.items():
        if first - 1e-3 <= pattern.wavelength <= second:
            return f"{symbol}Ka"
    return f"{pattern.wavelength}"


def requests_of(options: SolveOptions) -> dict[str, Request]:
    """Return a request for each formula. Raises InputError: there is none, or one is impossible."""
    from crystallm.generation.interpretation import interpret

    formulas = [name.strip() for name in (options.formula or "").split(",") if name.strip()]
    if not formulas:
        raise InputError("no formula: crystallm solve pattern.xy --formula TiO2, or --formula TiO2,Ti2O3")
    found = {}
    for name in formulas:
        request = Request.build({"formula": name, "z": options.z, "space_group": options.space_group})
        found[name] = with_default_z(request)
        interpret(found[name])
    return found


def candidates_of(
    request: Request, sampling: SamplingOptions, known: ReferenceOptions, n: int, executor: Executor | None
) -> Iterator[Crystal]:
    """Return at most n candidates of a formula: made of known crystals, then sampled.

    Raises:
        InputError: an impossible request.
        CrystallmError: a library or a model cannot be loaded.
    """
    asked = [request.model_copy(update={"n": n})]

    def load() -> Model:
        from crystallm.models.load import load_model

        return load_model(sampling.model, device=sampling.device, dtype=sampling.dtype)

    if known.crystals_from == "network":
        return iter(next(Generator(load(), asked, sampling, executor=executor).generate([0])))
    library = load_library(known.references)
    if known.crystals_from == "references":
        return iter(next(AnalogueGenerator(library, asked, sampling, executor=executor).generate([0])))
    return CombinedGenerator(load, library, asked, sampling, share=SHARE, executor=executor).crystals(0)
