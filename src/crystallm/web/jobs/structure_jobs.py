"""Jobs on uploaded structures: relaxation and evaluation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from crystallm.energy.relaxation import RelaxOptions

if TYPE_CHECKING:
    from crystallm.web.jobs.job import Job
    from crystallm.web.jobs.services import JobServices
    from crystallm.web.schemas import EvaluateRequest, RelaxRequest


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
