"""Complete crystals of which a part is given: sample or take from known ones, check, rank and store them."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from typing import Any

from crystallm.crystals.selection import SelectionOptions
from crystallm.crystals.table import COLUMNS
from crystallm.energy.registry import require
from crystallm.errors import InputError
from crystallm.execution.pool import ProcessPool
from crystallm.execution.progress import Progress, no_progress
from crystallm.execution.resumable import UnitResult, run_units
from crystallm.generation import completion, template
from crystallm.generation.analogues import AnyGenerator, library_of, resolve_source
from crystallm.generation.request import FormulaOptions, SamplingOptions
from crystallm.models.load import load_model
from crystallm.pipelines import samples
from crystallm.pipelines.generate import GenerateResult, count_rows
from crystallm.pipelines.options import CompleteOptions
from crystallm.references.options import ReferenceOptions
from crystallm.sources import collection
from crystallm.storage.run_folder import RunFolder
from crystallm.validity import collection as validity_collection


def run(
    path: str,
    whole: FormulaOptions,
    sampling: SamplingOptions,
    selection: SelectionOptions,
    options: CompleteOptions,
    *,
    known: ReferenceOptions | None = None,
    progress: Progress = no_progress,
) -> GenerateResult:
    """Generate crystals that contain the structure of a file.

    Args:
        known: whether known crystals that contain it give the missing atoms.

    Raises:
        InputError: no formula, a part that does not fit it, a model of another language.
        CrystallmError: a file cannot be read or written.
    """
    if whole.formula is None:
        raise InputError("no formula: give that of the whole crystal, such as --formula LiFePO4")
    if whole.z == "auto":
        raise InputError("z = 'auto' of a crystal to complete: leave it out, the fewest that fit are taken")
    if sampling.constraints != "full":
        raise InputError(f"constraints = {sampling.constraints!r}: crystals are completed with full ones")
    if selection.energy is not None:
        require(selection.energy)
    part = completion.fixed_part(
        template.read(path), whole.formula, z=whole.z, keep=options.keep, symprec=options.symprec
    )
    model = load_model(sampling.model, device=sampling.device, dtype=sampling.dtype)
    library = library_of(known := resolve_source(known, sampling.model))
    generator: AnyGenerator = (
        completion.CompletionGenerator(model, part, options.n, sampling, selection)
        if library is None
        else completion.CombinedCompletionGenerator(
            model, library, part, options.n, sampling, selection=selection
        )
    )
    config = RunFolder.configuration(
        "complete",
        whole,
        sampling,
        selection,
        options,
        weights=model.fingerprint,
        **samples.known_facts(known),
        part=validity_collection.survey(collection.read(path), named=False)[1],
    )
    folder = RunFolder(options.out, config, COLUMNS)

    def sample(units: Iterator[tuple[int, Any]], advance: Callable[[int], None]) -> Generator[UnitResult]:
        with ProcessPool(os.cpu_count() or 1) as pool:
            generator.executor = pool
            for _ in units:
                yield from samples.sample_requests(
                    generator, [0], selection, numbers=[0], named=False, progress=advance
                )

    run_units(
        [part],
        sample,
        folder,
        task="generating crystals",
        total=options.n,
        size=lambda _: options.n,
        progress=progress,
    )
    folder.finish()
    rows = folder.rows()
    return GenerateResult(lambda: rows, count_rows(rows, selection), lambda: generator.note(0), large=False)
