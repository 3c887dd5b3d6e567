"""Sample, check and rank the crystals of requests, as rows and CIFs, in this process or on workers.

The rows of a request are the same wherever it is sampled: samples have their indices in the whole run. Does
not depend on where rows are stored, or on the number of requests (see `blocks`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from crystallm.crystals import annotation, ranking
from crystallm.crystals import selection as crystals_selection
from crystallm.crystals.crystal import Crystal
from crystallm.crystals.table import COLUMNS, request_columns, select_rows
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

BATCH = 256
"""Crystals that are checked and ranked together, at most; fewer where that takes more than seconds."""


def sample_requests(
    generator: AnyGenerator,
    indices: Sequence[int],
    selection: crystals_selection.SelectionOptions,
    *,
    numbers: Sequence[int],
    named: bool,
    cifs: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Iterator[UnitResult]:
    """Sample, check and rank the crystals of requests in this process.

    Args:
        indices: of the requests in the generator.
        numbers: of the generator's requests in the run.
        named: whether file names have the number of the request.
        cifs: whether each selected crystal has a file.

    Raises:
        InputError: at once, if there is no grammar for a request.
    """
    generate = generator.generate_valid if selection.only_valid else generator.generate
    with_energies = selection.energy is not None  # then a crystal is done when it has its energy
    sampled = generate(indices, progress=None if with_energies else progress)
    min_batch = FEWEST
    if with_energies:  # enough for each core
        min_batch = max(min_batch, annotation.ENERGIES_PER_WORKER * (os.cpu_count() or 1))

    def results() -> Iterator[UnitResult]:
        n_before = 0

        def report(n: int) -> None:
            if progress is not None and with_energies:
                progress(n_before + n)

        size = AdaptiveBatchSize(BATCH, min_batch)
        for batch in grouped(zip(indices, sampled, strict=True), lambda pair: len(pair[1]), size.sizes()):
            crystals = [crystal for _, of_request in batch for crystal in of_request]
            if not selection.only_valid:  # otherwise they are checked already
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
                ranking.rank(
                    [of_request for _, of_request in batch], selection.ranking, executor=generator.executor
                )
            for index, of_request in batch:
                number = numbers[index]
                rows = _rows(number, generator.plans[index].request, of_request, generator.starts[index])
                selected = select_rows(rows, selection)
                for row in rows:
                    row["kept"] = any(row is other for other in selected)
                files = _name_files(selected, named=named) if cifs else {}
                yield UnitResult(number, rows, files)
            size.done(len(crystals))

    return results()


# --- on workers ---


def model_description(
    model: Model | None, settings: SamplingOptions, known: ReferenceOptions | None = None
) -> dict[str, Any]:
    """Return what a worker needs to sample like this process: model, weights and settings, as JSON values."""
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


def make_task_generator(
    task: Mapping[str, Any],
    requests: Sequence[Request],
    selection: crystals_selection.SelectionOptions | None = None,
    *,
    check_workers: int = 1,
) -> AnyGenerator:
    """Return the generator of a task, on the worker.

    If the task has several `devices`, the processes of this machine take them in turn.

    Args:
        task: from `model_description`, with the indices of the samples.
        selection: how many samples a request may take.
        check_workers: processes for checks beside the worker.

    Raises:
        CheckpointError: the worker does not find the model.
        InputError: its model of this name has other weights.
    """
    import torch

    torch.set_num_threads(1)  # there is one worker per core
    settings = SamplingOptions(**task["settings"])
    if devices := task.get("devices"):
        settings = settings.model_copy(update={"device": devices[worker_index() % len(devices)]})
    if settings.device.startswith("cuda:"):
        torch.cuda.set_device(settings.device)
    model = _model(task["model"], settings.device, settings.dtype) if "model" in task else None
    if model is not None and model.fingerprint != task["weights"]:
        raise InputError(f"the workers see other weights at {task['model']!r}: put the same ones there")
    known = ReferenceOptions(**task["references"])
    return make_generator(
        model,
        requests,
        settings,
        selection,
        library_of(known),
        reading=known.reading,
        first=task["first"],
        starts=task.get("starts"),
        executor=worker_pool(check_workers),
    )


@lru_cache(maxsize=1)
def _model(name: str, device: str, dtype: str) -> Model:
    from crystallm.models.load import load_model

    return load_model(name, device=device, dtype=dtype)


def _rows(number: int, request: Request, crystals: Sequence[Crystal], start: int) -> list[dict[str, Any]]:
    """Return the rows of one request; `start` is the number of its first sample."""
    rows = []
    for sample, crystal in enumerate(crystals, start=start):
        row = crystal.row() | request_columns(request) | {"request": number, "sample": sample}
        rows.append({name: row.get(name) for name in COLUMNS})
    return rows


def _name_files(selected: Sequence[dict[str, Any]], *, named: bool) -> dict[str, str]:
    """Return the CIFs of the selected crystals by file name, and set the names in their rows."""
    cifs = {}
    for row in selected:
        if row["cif"]:
            prefix = f"{row['request']:05d}-" if named else ""
            row["file"] = f"{prefix}{row['formula']}-sg{row['space_group_number']}-{row['sample']:04d}.cif"
            cifs[row["file"]] = row["cif"]
    return cifs
