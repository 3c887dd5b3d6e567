"""Jobs on uploads: checks and relaxation of structures, and the crystal of a powder pattern.

A pattern is solved in a thread of its own. Its candidates are fitted in processes that stay for the next job.
The job reports how many are fitted, then the answers with their fits, best first. An interrupted one begins
again.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm.diffraction.options import PatternOptions, SolveOptions, SolveReferenceOptions
from crystallm.diffraction.radiation import radiation_of
from crystallm.diffraction.readers import parse_pattern
from crystallm.diffraction.solution import report
from crystallm.diffraction.solution.candidates import default_wavelength, given_radiation
from crystallm.diffraction.solution.phases import phase_of
from crystallm.diffraction.solution.solve import solve_pattern
from crystallm.energy.relaxation import RelaxOptions
from crystallm.errors import InputError
from crystallm.generation.request import SamplingOptions
from crystallm.web.formula_check import FieldError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor

    from crystallm.diffraction.solution.solve import Solution
    from crystallm.diffraction.solution.solver import Answer
    from crystallm.execution.progress import Progress
    from crystallm.web.jobs.job import Job
    from crystallm.web.jobs.services import JobServices
    from crystallm.web.schemas import EvaluateRequest, RelaxRequest, SolveRequest

MAX_POINTS = 1500
"""Points of the curves of an answer, at most; further ones are averaged."""


async def evaluate(services: JobServices, job: Job, request: EvaluateRequest) -> None:
    """Check the structures that the job has not checked yet."""
    earlier = await asyncio.to_thread(job.results)
    job.set_state("running", total=len(request.structures))
    finished = {summary["number"] for summary in earlier["crystals"]}

    async def check(number: int, text: str) -> None:
        summary = await services.uploaded_summary(text, request.read_as)
        job.add_event("crystal", {"number": number, **summary})
        services.metrics.crystals.labels("evaluate").inc()

    async with asyncio.TaskGroup() as group:
        for number, text in enumerate(request.structures):
            if number not in finished:
                group.create_task(check(number, text))


async def relax(services: JobServices, job: Job, request: RelaxRequest) -> None:
    """Relax the structures that the job has not relaxed yet."""
    earlier = await asyncio.to_thread(job.results)
    job.set_state("running", total=len(request.structures))
    summaries = {summary["number"]: summary for summary in earlier["crystals"]}
    options = RelaxOptions(steps=request.steps, fmax=request.fmax, keep_symmetry=request.keep_symmetry)

    async def summarise(number: int, text: str) -> dict[str, Any]:
        summary = await services.uploaded_summary(text)
        job.add_event("crystal", {"number": number, **summary})
        return summary

    async def relax_structure(number: int, text: str) -> None:
        summary = summaries.get(number) or await summarise(number, text)
        update: dict[str, Any] = {"energy": None, "energy_reason": "no crystal"}
        if "structure" in summary:
            update = await services.relax(summary["structure"], str(request.energy), options)
        job.add_event("update", [{"number": number, **update}])
        services.metrics.crystals.labels("relax").inc()

    async with asyncio.TaskGroup() as group:
        for number, text in enumerate(request.structures):
            if "energy" not in summaries.get(number, {}):
                group.create_task(relax_structure(number, text))


async def solve(services: JobServices, job: Job, request: SolveRequest) -> None:
    """Solve a pattern.

    Raises:
        FieldError: the pattern, a phase or the wavelength is wrong.
        CrystallmError: no peak in the pattern, no candidate, or a library that cannot be loaded.
    """

    def work(executor: Executor, put: Callable[[Any], None]) -> Solution:
        return solution_of(services, request, executor, _reporter(put))

    async with services.search_threads.stream(work) as stream:
        async for done, total in stream:
            job.add_event("progress", {"candidates": done, "total": total})
        solution = stream.result
    note = solution.conclusion
    job.set_state("running", note=note, total=len(solution.answers))
    for rank, answer in enumerate(solution.answers, 1):
        row = report.row_of(solution, rank, answer)
        summary = await services.uploaded_summary(row["cif"], "text")
        fit = {name: row[name] for name in report.FIT} | await asyncio.to_thread(curves, solution, answer)
        relative = None if answer.crystal.source is None else answer.crystal.source.relative
        known = {} if relative is None else {"relative": relative._asdict()}
        job.add_event("crystal", {"number": rank - 1, "rank": rank, **summary, **known, "fit": fit})
        services.metrics.crystals.labels("solve").inc()


def solution_of(
    services: JobServices, request: SolveRequest, executor: Executor, progress: Progress
) -> Solution:
    """Return the solution of a request; raises as `solve`."""
    options = PatternOptions.build({"wavelength": request.wavelength, "radiation": request.radiation})
    try:
        given = given_radiation(options)
    except InputError as error:
        raise FieldError("wavelength", str(error)) from None
    try:
        pattern = parse_pattern(
            request.pattern_text, request.pattern_name, None if given is None else given.wavelength
        )
        phases = [phase_of(f"phase {i}", text) for i, text in enumerate(request.phase_cifs, 1)]
    except InputError as error:
        raise FieldError("pattern", str(error)) from None
    model = services.model(request.model)
    group = None if request.space_group is None else str(request.space_group)
    return solve_pattern(
        pattern,
        given or radiation_of(default_wavelength(pattern), options.radiation),
        SolveOptions.build(
            {
                "formula": request.formula,
                "z": request.z,
                "space_group": group,
                "candidates": request.candidates,
                "answers": request.answers,
            }
        ),
        SamplingOptions.build(
            {
                "model": model.name,
                "seed": request.seed or 0,
                "batch_size": services.batch_size,
                "device": "cpu",
            }
        ),
        SolveReferenceOptions(crystals_from=request.crystals_from),
        executor=executor,
        progress=progress,
        phases=phases,
        model=model,
    )


def _reporter(put: Callable[[Any], None]) -> Progress:
    """Return what reports (candidates fitted, of at most)."""

    @contextmanager
    def progress(what: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:  # noqa: ARG001
        yield lambda n: put((done + n, total))

    return progress


def curves(solution: Solution, answer: Answer) -> dict[str, Any]:
    """Return the curves of an answer: `two_theta` (first, step), `measured`, `calculated`, `background`."""
    pattern, fit = solution.pattern, answer.fit
    together = -(-len(pattern.two_theta) // MAX_POINTS)
    starts = np.arange(0, len(pattern.two_theta) - together + 1, together)

    def means(values: Any) -> list[float]:
        sums = np.add.reduceat(values[: len(starts) * together], starts)
        return [float(f"{value:.5g}") for value in sums / together]

    angles = means(pattern.two_theta)
    return {
        "two_theta": [angles[0], (angles[-1] - angles[0]) / max(1, len(angles) - 1)],
        "measured": means(pattern.intensity),
        "calculated": means(fit.calculated),
        "background": means(fit.background),
        "radiation": solution.radiation.name,
    }
