"""`crystallm complete`."""

from __future__ import annotations

from crystallm.cli.commands.generate import show_crystals
from crystallm.cli.console import progress_bars
from crystallm.cli.option_groups import Flat, OutputOptions, Positional
from crystallm.crystals.selection import SelectionOptions
from crystallm.errors import InputError
from crystallm.generation.request import FormulaOptions, PlainSamplingOptions
from crystallm.pipelines.options import CompleteOptions
from crystallm.references.options import CompleteReferenceOptions


def complete(
    path: Positional = None,
    /,
    *,
    whole: Flat[FormulaOptions] = FormulaOptions.defaults(),
    sampling: Flat[PlainSamplingOptions] = PlainSamplingOptions.defaults(),
    selection: Flat[SelectionOptions] = SelectionOptions.defaults(),
    known: Flat[CompleteReferenceOptions] = CompleteReferenceOptions.defaults(),
    options: Flat[CompleteOptions] = CompleteOptions.defaults(),
    output: Flat[OutputOptions] = OutputOptions.defaults(),
) -> None:
    """Add the missing atoms to a crystal.

    crystallm complete FePO4.cif --formula LiFePO4 -n 20 --out out/lithiated

    PATH is a file with the given part: a CIF, POSCAR or other single crystal. Its atoms stay, and its space
    group is that of the whole crystal. Known crystals that contain the part, with other elements, give half
    of the answers. Needs a model of the language orbits.
    """
    from crystallm.pipelines import complete as pipeline

    if path is None:
        raise InputError("no crystal: name the file of the given part")
    result = pipeline.run(
        path,
        whole,
        sampling,
        selection,
        options,
        known=known,
        progress=progress_bars(shown=output.progress),
    )
    show_crystals(result, selection, options, output)
