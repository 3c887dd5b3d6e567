"""Run a job of any kind.

A job that was interrupted is run like any other, except for what it has reported already. Jobs report events:

    crystal   summary (see `crystal_tasks`) with the crystal's `number`, as soon as it is checked
    update    further facts on crystals by number: energies, relaxed cells, clusters and ranks
    curve     {"step", "energy"}: the lowest energy so far
    progress  of a search or of the candidates of a pattern
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from crystallm.web import schemas
from crystallm.web.jobs import fair_pool, generate_job, search_job, upload_jobs
from crystallm.web.jobs.job import Job
from crystallm.web.jobs.services import JobServices

_RUN: dict[type, Callable[[JobServices, Job, Any], Awaitable[None]]] = {
    schemas.GenerateRequest: generate_job.run,
    schemas.SearchRequest: search_job.run,
    schemas.SolveRequest: upload_jobs.solve,
    schemas.RelaxRequest: upload_jobs.relax,
    schemas.EvaluateRequest: upload_jobs.evaluate,
}


async def run_job(services: JobServices, job: Job) -> None:
    """Run a job to its end; its tasks share worker processes with those of other clients and jobs."""
    fair_pool.OWNER.set((job.address, job.id))
    request = schemas.request_from_record(job.request)
    await _RUN[type(request)](services, job, request)
