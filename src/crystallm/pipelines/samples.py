"""Requests written, judged, ranked and kept as rows and CIFs, and what an executor's workers need for it.

A unit is one request of a run. Its rows are the same wherever it is done: its samples have the indices that
they have in the whole run. Knows what a row of results holds; refuses to know where rows are kept, and how
many requests there are (see `bulk`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from crystallm.crystals import annotation, ranking
from crystallm.crystals import selection as crystals_selection
from crystallm.crystals.crystal import Crystal
from crystallm.crystals.table import COLUMNS, kept, request_columns
from crystallm.errors import InputError
from crystallm.execution.batching import FEWEST, AdaptiveBatchSize, grouped
from crystallm.execution.pool import worker_pool
from crystallm.execution.resumable import UnitResult
from crystallm.execution.tasks import worker_index
from crystallm.generation.analogues import AnyGenerator, library_of, make_generator
from crystallm.generation.request import Request, SamplingOptions
from crystallm.models.model import Model
from crystallm.references.load import fingerprint
from crystallm.references.options import ReferenceOptions

JUDGED_TOGETHER = 256
"""Crystals that are judged, ranked and kept together, at most; fewer where these take more than seconds."""


def write(
    generator: AnyGenerator,
    todo: Sequence[int],
    selection: crystals_selection.SelectionOptions,
    *,
    numbers: Sequence[int],
    named: bool,
    cifs: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Iterator[UnitResult]:
    """Write units in this process.

    Args:
        generator: of the run's requests.
        numbers: of the generator's requests in the run.
        named: whether files are named after the request too.
        cifs: whether there are files.

    Raises:
        InputError: at once, if no rule can be made for a request.
    """
    writing = generator.generate_valid if selection.only_valid else generator.generate
    with_energies = selection.energy is not None  # then a crystal is done when it has its energy
    written = writing(todo, progress=None if with_energies else progress)
    least = FEWEST
    if with_energies:  # so many that each core has some to ask about
        least = max(least, annotation.WEIGHED_BY_ONE * (os.cpu_count() or 1))

    def units() -> Iterator[UnitResult]:
        n_before = 0

        def report(n: int) -> None:
            if progress is not None and with_energies:
                progress(n_before + n)

        portion = AdaptiveBatchSize(JUDGED_TOGETHER, least)
        for together in grouped(zip(todo, written, strict=True), lambda one: len(one[1]), portion.sizes()):
            crystals = [crystal for _, found in together for crystal in found]
            if not selection.only_valid:  # else they have been judged
                annotation.validate(crystals, generator.executor)
            annotation.add_energies(
                crystals,
                selection,
                device=generator.settings.device,
                executor=generator.executor,
                on_done=report,
            )
            n_before += len(crystals)
            report(0)
            if selection.ranking is not None:
                ranking.rank([found for _, found in together], selection.ranking, executor=generator.executor)
            for unit, crystals in together:
                number = numbers[unit]
                rows = _rows(number, generator.plans[unit].request, crystals, generator.starts[unit])
                answers = kept(rows, selection)
                for row in rows:
                    row["kept"] = any(row is answer for answer in answers)
                files = _name_files(answers, named=named) if cifs else {}
                yield UnitResult(number, rows, files)
            portion.done(sum(len(found) for _, found in together))

    return units()


# -- what every task that writes needs -----------------------------------------------------------------------


def described(
    model: Model | None, settings: SamplingOptions, known: ReferenceOptions | None = None
) -> dict[str, Any]:
    """What a worker needs to write as a generator here does, besides requests and their first indices."""
    from crystallm.models import load

    known = known or ReferenceOptions.defaults()
    task = {"settings": settings.model_dump(), "references": known.absolute().model_dump(mode="json")}
    if model is None:
        return task
    name = settings.model
    bundled = name in load.list_models()
    return task | {
        "model": name if bundled else str(load.find(name).resolve()),
        "weights": model.fingerprint,
    }


def known_facts(known: ReferenceOptions) -> dict[str, Any]:
    """Return what the configuration of a run says of known crystals; nothing where none are used."""
    library = library_of(known)
    if library is None:
        return {}
    return {"source": known.crystals_from, "library": fingerprint(library)}


def generator_of(
    task: Mapping[str, Any],
    requests: Sequence[Request],
    selection: crystals_selection.SelectionOptions | None = None,
    *,
    checks: int = 1,
) -> AnyGenerator:
    """The generator that a task describes, on the worker.

    Where the task names several `devices`, the processes of this machine take them in turn.

    Args:
        task: from `described`, with the indices of the samples.
        selection: how many samples a request may take.
        checks: processes beside the worker that check crystals.

    Raises:
        CheckpointError: the worker does not see the model.
        InputError: it sees another one of this name.
    """
    import torch

    torch.set_num_threads(1)  # workers stand side by side, one a core
    settings = SamplingOptions(**task["settings"])
    if devices := task.get("devices"):
        settings = settings.model_copy(update={"device": devices[worker_index() % len(devices)]})
    if settings.device.startswith("cuda:"):
        torch.cuda.set_device(settings.device)
    model = _model(task["model"], settings.device, settings.dtype) if "model" in task else None
    if model is not None and model.fingerprint != task["weights"]:
        raise InputError(f"the workers see other weights at {task['model']!r}: put the same ones there")
    return make_generator(
        model,
        requests,
        settings,
        selection,
        library_of(ReferenceOptions(**task["references"])),
        first=task["first"],
        starts=task.get("starts"),
        executor=worker_pool(checks),
    )


@lru_cache(maxsize=1)
def _model(name: str, device: str, dtype: str) -> Model:
    from crystallm.models.load import load_model

    return load_model(name, device=device, dtype=dtype)


def _rows(unit: int, request: Request, crystals: Sequence[Crystal], start: int) -> list[dict[str, Any]]:
    """Rows of one request, the first one that of the sample with this number."""
    rows = []
    for sample, crystal in enumerate(crystals, start=start):
        row = crystal.row() | request_columns(request) | {"request": unit, "sample": sample}
        rows.append({name: row.get(name) for name in COLUMNS})
    return rows


def _name_files(answers: Sequence[dict[str, Any]], *, named: bool) -> dict[str, str]:
    """The CIFs of a request's answers by file name, which is noted in their rows."""
    cifs = {}
    for row in answers:
        if row["cif"]:
            place = f"{row['request']:05d}-" if named else ""
            row["file"] = f"{place}{row['formula']}-sg{row['space_group_number']}-{row['sample']:04d}.cif"
            cifs[row["file"]] = row["cif"]
    return cifs
