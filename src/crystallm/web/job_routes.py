"""Routes of jobs: submit, resume, state, cancel, events."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Depends, HTTPException, Request
from fastapi.responses import Response, StreamingResponse

from crystallm.web import schemas
from crystallm.web.jobs.job import BusyError, Job, combine_events
from crystallm.web.jobs.store import INTERRUPTED
from crystallm.web.rate_limits import NoSlotError
from crystallm.web.request_check import check_request
from crystallm.web.schemas import PROBLEMS, JobState, Problem
from crystallm.web.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from crystallm.web.security import Receive, Scope, Send

router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"])
_EXAMPLES: dict[str, Any] = {
    "generate": {
        "summary": "Four crystals with rutile's cell",
        "value": {"kind": "generate", "formula": "TiO2", "z": 2, "space_group": 136, "n": 4, "seed": 1},
    },
    "auto": {
        "summary": "Z and space group chosen by the model, ranked by energy",
        "value": {"kind": "generate", "formula": "NaCl", "z": "auto", "n": 8, "energy": "chgnet"},
    },
}
JobRequest = Annotated[schemas.JobRequest, Body(discriminator="kind", openapi_examples=_EXAMPLES)]


def server_of(request: Request) -> Server:
    """Return the server whose application answers a request."""
    server: Server = request.app.state.server
    return server


ThisServer = Annotated[Server, Depends(server_of)]


@router.post("", status_code=202, responses=PROBLEMS, response_model=JobState)
async def submit(body: JobRequest, request: Request, server: ThisServer) -> Response:
    """Submit a job: generate, search, solve, relax or evaluate."""
    server.require_network()
    record = check_request(server.services, body)
    job = server.jobs.submit(record, server.address_of(request), server.services.origin(record))
    return await _state(server, job, 202)


@router.post(
    "/{job_id}/resume",
    status_code=202,
    responses={**PROBLEMS, 409: {"model": Problem, "description": "It is over, or began elsewhere."}},
    response_model=JobState,
)
async def resume(job_id: str, request: Request, server: ThisServer) -> Response:
    """Resume a job that the end of the server has interrupted; its crystals stay.

    The request needs no body, but the header Content-Type: application/json. A queued or running job is left
    as it is.
    """
    job = await find_job(server, job_id)
    _require_resumable(server, job)
    server.jobs.resume(job, server.address_of(request))
    return await _state(server, job, 202)


@router.get("/{job_id}", responses=PROBLEMS, response_model=JobState)
async def state(job_id: str, server: ThisServer) -> Response:
    """The state of a job and all its crystals so far."""
    return await _state(server, await find_job(server, job_id))


@router.delete("/{job_id}", responses=PROBLEMS, response_model=JobState)
async def cancel(job_id: str, server: ThisServer) -> Response:
    """Cancel a job; its crystals stay."""
    job = await find_job(server, job_id)
    server.jobs.cancel(job)
    deadline = time.monotonic() + 5.0
    while job.task is not None and not job.is_over and time.monotonic() < deadline:
        await job.wait_for_change(0.5)
    return await _state(server, job)


@router.get(
    "/{job_id}/events",
    responses={**PROBLEMS, 200: {"content": {"text/event-stream": {}}}},
    response_class=StreamingResponse,
)
async def events(job_id: str, request: Request, server: ThisServer) -> StreamingResponse:
    """The events of a job, as server-sent events.

    They are `state`, `position`, `crystal`, `update`, `curve`, and of a search or a pattern `progress`. With
    the header Last-Event-ID the stream continues after that event.
    """
    job = await find_job(server, job_id)
    address = server.address_of(request)
    try:
        server.streams.take(address)
    except NoSlotError:
        raise BusyError("too many clients follow jobs: request the state from time to time", 10) from None
    last = request.headers.get("last-event-id", "")
    start = int(last) if last.isascii() and last.isdecimal() and len(last) < 9 else 0
    return _Stream(_stream(server, job, start), lambda: server.streams.release(address))


async def find_job(server: Server, job_id: str) -> Job:
    """Return a job; HTTPException 404 if there is none of this id."""
    job = await server.jobs.get(job_id)
    if job is None:
        raise HTTPException(404, "no such job: it never existed, or was deleted")
    return job


async def _state(server: Server, job: Job, status: int = 200) -> Response:
    # A large job is megabytes of JSON: build them in another thread, so that no stream waits.
    body = await asyncio.to_thread(_state_json, job, list(job.events), server.jobs.position(job))
    return Response(body, status, media_type="application/json")


def _state_json(job: Job, lines: Sequence[str], position: int | None) -> str:
    names = ("state", "total", "note", "message", "crystals", "curve", "progress")
    results = {name: value for name, value in combine_events(lines).items() if name in names}
    return JobState(
        id=job.id, request=job.request, created=job.created, position=position, **results
    ).model_dump_json()


def _require_resumable(server: Server, job: Job) -> None:
    """Check that an ended job can be resumed here, as it began."""
    if not job.is_over:
        return
    if job.state != INTERRUPTED:
        raise HTTPException(409, f"the job is {job.state}: only an interrupted job can be resumed")
    if job.origin != server.services.origin(job.request):
        raise HTTPException(
            409, "the job began with other weights or another version than this server has: submit it again"
        )
    server.require_network()
    check_request(server.services, schemas.request_from_record(job.request))


class _Stream(StreamingResponse):
    """Events, with a callback when the client has gone, even before the first event."""

    def __init__(self, stream: AsyncIterator[str], on_end: Callable[[], None]) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(stream, media_type="text/event-stream", headers=headers)
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()


async def _stream(server: Server, job: Job, start: int) -> AsyncIterator[str]:
    yield "retry: 2000\n\n"
    async for number, line in server.jobs.follow(job, start):
        if not line:
            yield ": still here\n\n"
            continue
        event = json.loads(line)["event"] if number == 0 else line[10 : line.index('"', 10)]
        data = line[line.index('"data":') + 7 : -1].strip()
        head = f"id: {number}\n" if number else ""
        yield f"{head}event: {event}\ndata: {data}\n\n"
