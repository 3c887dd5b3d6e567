"""Complete crystals of which a part is given: sample, check, rank and store them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from crystallm.crystals.table import COLUMNS
from crystallm.energy.registry import require
from crystallm.errors import InputError
from crystallm.execution.pool import ProcessPool
from crystallm.execution.progress import Progress, no_progress
from crystallm.generation import completion, template
from crystallm.models.load import load_model
from crystallm.models.model import fingerprint
from crystallm.pipelines import samples
from crystallm.pipelines.generate import GenerateResult, count_rows
from crystallm.sources import collection
from crystallm.storage.run_folder import RunFolder
from crystallm.validity import collection as validity_collection
from crystallm.version import __version__

if TYPE_CHECKING:
    from crystallm.crystals.selection import SelectionOptions
    from crystallm.generation.request import FormulaOptions, SamplingOptions
    from crystallm.pipelines.options import CompleteOptions


def run(
    path: str,
    whole: FormulaOptions,
    sampling: SamplingOptions,
    selection: SelectionOptions,
    options: CompleteOptions,
    *,
    progress: Progress = no_progress,
) -> GenerateResult:
    """Generate crystals that contain the structure of a file.

    Args:
        path: of the given part.
        whole: formula and Z of the whole crystal.
        sampling: how; its constraints are always full.
        selection: which crystals are kept.
        options: what of the part stays, and where results go.
        progress: shows it.

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
    part = completion.host(
        template.read(path), whole.formula, z=whole.z, keep=options.keep, symprec=options.symprec
    )
    model = load_model(sampling.model, device=sampling.device, dtype=sampling.dtype)
    generator = completion.CompletionGenerator(model, part, options.n, sampling, selection)
    folder = None
    if options.out is not None:
        question = {
            "command": "complete",
            "version": __version__,
            "weights": fingerprint(model),
            "part": validity_collection.survey(collection.read(path), named=False)[1],
            **whole.model_dump(exclude_unset=True),
            **sampling.model_dump(exclude={"device", "batch_size"}, exclude_unset=True),
            **selection.model_dump(exclude_unset=True),
            **options.model_dump(exclude={"out"}, exclude_unset=True),
        }
        folder = RunFolder(options.out, question, COLUMNS, n_units=1)
    if folder is not None and not folder.open():
        folder.finish()
        rows = folder.rows()
    else:
        rows = _generate(generator, selection, folder, progress)
    return GenerateResult(lambda: rows, count_rows(rows, selection), lambda: generator.note(0), large=False)


def _generate(
    generator: completion.CompletionGenerator,
    selection: SelectionOptions,
    folder: RunFolder | None,
    progress: Progress,
) -> list[dict[str, Any]]:
    with (
        ProcessPool(os.cpu_count() or 1) as pool,
        progress("generating crystals", generator.plans[0].request.n) as advance,
    ):
        generator.executor = pool
        (result,) = samples.write(generator, [0], selection, numbers=[0], named=False, progress=advance)
    if folder is not None:
        folder.write_unit(0, result.rows, result.cifs)
        folder.finish()
    return result.rows
