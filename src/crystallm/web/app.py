"""The routes of the page and the API. Knows HTTP and jobs; refuses to know how a job is done."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import time
import zipfile
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Body, FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as StarletteHTTPException

from crystallm.errors import CrystallmError, InputError
from crystallm.execution.tasks import TaskError
from crystallm.version import __version__
from crystallm.web import formula_check, schemas
from crystallm.web.jobs import crystal_tasks
from crystallm.web.jobs.job import BusyError, Job, view
from crystallm.web.jobs.queue import Jobs
from crystallm.web.jobs.runner import JobRunner
from crystallm.web.jobs.store import INTERRUPTED
from crystallm.web.metrics import Metrics, resident_bytes
from crystallm.web.rate_limits import Limits, NoSlotError, Slots, origin
from crystallm.web.security import ApiKeys, Guard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence

    from crystallm.models.model import Model
    from crystallm.web.jobs.store import Store
    from crystallm.web.security import Application, Receive, Scope, Send

_LOG = logging.getLogger(__name__)
STATIC = Path(__file__).parent / "static"
_MEDIA = {
    "cif": ("chemical/x-cif", "cif"),
    "poscar": ("text/plain; charset=utf-8", "vasp"),
    "extxyz": ("chemical/x-xyz", "extxyz"),
}
_ENOUGH_MESSAGE = 300  # characters of an error that are told

AnyAsk = Annotated[
    schemas.Generate | schemas.Search | schemas.Relax | schemas.Evaluate,
    Body(
        discriminator="kind",
        openapi_examples={
            "generate": {
                "summary": "Four crystals of rutile's cell",
                "value": {
                    "kind": "generate",
                    "formula": "TiO2",
                    "z": 2,
                    "space_group": 136,
                    "n": 4,
                    "seed": 1,
                },
            },
            "auto": {
                "summary": "Z and the space group left to the network, ranked by energy",
                "value": {"kind": "generate", "formula": "NaCl", "z": "auto", "n": 8, "energy": "chgnet"},
            },
        },
    ),
]


class ErrorDetail(BaseModel):
    """What is wrong, in one line."""

    message: str
    field: str | None = Field(default=None, description="The field of the request that says so.")


class Problem(BaseModel):
    """An answer to what cannot be done."""

    error: ErrorDetail


class JobState(BaseModel):
    """A job and what it has found so far."""

    id: str
    ask: dict[str, Any] = Field(description="What is done: the request, what it left open filled in.")
    created: float = Field(description="Seconds since 1970.")
    state: Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]
    position: int | None = Field(default=None, description="Place in the queue, from 1.")
    total: int | None = Field(default=None, description="Crystals that are to come; simulations of a search.")
    note: str | None = Field(default=None, description="How the request was read.")
    message: str | None = Field(default=None, description="Why it failed.")
    crystals: list[dict[str, Any]] = Field(default_factory=list)
    curve: list[dict[str, Any]] = Field(default_factory=list, description="Lowest energy by step, eV/atom.")
    progress: dict[str, Any] | None = Field(
        default=None, description="How far a search is: simulations, energy calls, texts, valid ones."
    )


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem},
    422: {"model": Problem},
    429: {"model": Problem, "description": "Too many jobs; Retry-After says when to come again."},
}


class Server:
    """All that a server holds, and its application.

    Args:
        models: loaded, by name, the default one first.
        store: where jobs are kept.
        energies: energy models that are offered.
        limits: of all that is asked.
        hosts: names under which it is reached; none for any.
        keys: of those who may use the API.
        judges: processes that judge crystals; by default half as many as there are cores.
        weighers: processes with an energy model.
        batch_size: texts written at a time.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        store: Store,
        *,
        energies: Sequence[str] = (),
        limits: Limits | None = None,
        hosts: Iterable[str] = (),
        keys: Iterable[str] = (),
        judges: int | None = None,
        weighers: int = 1,
        batch_size: int = 32,
    ) -> None:
        self.limits = limits or Limits()
        self.metrics = Metrics()
        self.keys = ApiKeys(keys)
        self.runner = JobRunner(
            models,
            energies,
            self.limits,
            self.metrics,
            judges=judges,
            weighers=weighers,
            batch_size=batch_size,
        )
        self.jobs = Jobs(store, self.limits, self.metrics, self.runner.run)
        self.streams = Slots(self.limits.streams, self.limits.streams_per_address)
        self.files = Slots(self.limits.files)
        self._said_proxy = False
        self.app: Application = Guard(_application(self), self.limits, self.metrics, hosts, self.keys)

    def about(self) -> dict[str, Any]:
        """What a client has to know of this server."""
        limits = self.limits
        return {
            "version": __version__,
            "models": [
                {
                    "name": name,
                    "language": model.language.name,
                    "parameters": model.network.num_parameters(),
                    "summary": str(model.card.get("summary", "")),
                }
                for name, model in self.runner.models.items()
            ],
            "energies": self.runner.energies,
            "search": bool(self.runner.energies),
            "keys": bool(self.keys),
            "limits": {
                name: getattr(limits, name)
                for name in ("samples", "atoms", "structures", "simulations", "per_address")
            },
            "elements": formula_check.about_elements(),
            "space_groups": formula_check.about_groups(),
        }

    def check_writes(self) -> None:
        """Raise a CrystallmError where no text can be written any more."""
        if self.runner.broken:
            raise CrystallmError("the network cannot write any more: restart the server")

    def address_of(self, request: Request) -> str:
        """The address that counts as a client's; says once if that of a proxy stands for all behind it."""
        host = request.client.host if request.client is not None else ""
        told = request.headers.get("x-forwarded-for", "")
        if told and host not in told and not self._said_proxy:
            self._said_proxy = True
            _LOG.warning(
                "a proxy at %s is not believed, so that all who come through it count as one address: start "
                "with --behind-proxy, or --proxies %s",
                host,
                host,
            )
        return origin(host)

    def gauges(self) -> dict[str, tuple[str, float]]:
        """What is now, for a monitor."""
        engines = self.runner.engines.values()
        return {
            "jobs_running": ("Jobs being done.", self.jobs.n_running),
            "jobs_waiting": ("Jobs in the queue.", self.jobs.n_waiting),
            "texts_being_written": ("Texts in the batches.", sum(e.n_writing for e in engines)),
            "texts_written": ("Texts since the start.", sum(e.n_written for e in engines)),
            "tokens_written": ("Tokens since the start.", sum(e.n_tokens for e in engines)),
            "streams": ("Clients that follow jobs.", self.streams.n_taken),
            "resident_memory_bytes": ("Memory of the server's process.", resident_bytes()),
        }


def _application(server: Server) -> FastAPI:
    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        server.runner.open()
        server.jobs.open()
        yield
        await server.jobs.close()
        server.runner.close()

    app = FastAPI(
        title="crystallm",
        version=__version__,
        summary="Plausible crystal structures from a chemical formula.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        lifespan=life,
    )
    _add_errors(app)
    _add_facts(app, server)
    _add_jobs(app, server)
    _add_crystals(app, server)
    app.mount("/", StaticFiles(directory=STATIC, html=True), name="page")
    return app


def _problem(status: int, message: str, field: str | None = None, **headers: str) -> JSONResponse:
    content = {"error": {"message": message[:_ENOUGH_MESSAGE], "field": field}}
    return JSONResponse(content, status, headers=headers)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def wrong(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"] if part not in ("body", "query", *schemas.KINDS)]
        message = first["msg"][:1].lower() + first["msg"][1:]
        if first["type"] == "extra_forbidden":
            message = "there is no such field"
        field = place[0][:60] if place else None
        return _problem(422, f"{field}: {message}" if field else message, field)

    @app.exception_handler(InputError)
    async def refused(_: Request, error: InputError) -> JSONResponse:
        return _problem(422, str(error), getattr(error, "field", None))

    @app.exception_handler(BusyError)
    async def busy(_: Request, error: BusyError) -> JSONResponse:
        return _problem(429, str(error), **{"Retry-After": str(error.after)})

    @app.exception_handler(CrystallmError)
    async def failed(_: Request, error: CrystallmError) -> JSONResponse:
        return _problem(503, str(error), **{"Retry-After": "30"})

    @app.exception_handler(TaskError)
    async def lost(_: Request, error: TaskError) -> JSONResponse:
        return _problem(503, f"this could not be worked out: {error.reason}")

    @app.exception_handler(StarletteHTTPException)
    async def plain(_: Request, error: StarletteHTTPException) -> JSONResponse:
        return _problem(error.status_code, str(error.detail), **dict(error.headers or {}))


def _add_facts(app: FastAPI, server: Server) -> None:
    about = server.about()

    @app.get("/healthz", tags=["server"])
    async def healthz() -> JSONResponse:
        """Whether crystals can be written."""
        broken = server.runner.broken
        return JSONResponse({"status": "broken" if broken else "ok"}, 503 if broken else 200)

    @app.get("/metrics", tags=["server"], response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        """What a monitor reads, in the text format of Prometheus."""
        text = server.metrics.text(server.gauges())
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/api/v1/about", tags=["server"])
    async def told() -> dict[str, Any]:
        """Models, energies, limits, elements and space groups of this server."""
        return about

    @app.get("/api/v1/reading", tags=["server"], responses=_PROBLEMS)
    def read(
        formula: Annotated[str, Query(min_length=1, max_length=200, examples=["TiO2"])],
        z: Annotated[str | None, Query(max_length=8, description="A number or auto.")] = None,
        space_group: Annotated[str | None, Query(max_length=30)] = None,
    ) -> dict[str, Any]:
        """How a formula is understood: the cell, possible Z, which space groups can hold it, why not."""
        return formula_check.read(formula, z or None, space_group or None, server.limits.atoms)


def _add_jobs(app: FastAPI, server: Server) -> None:
    jobs = server.jobs

    @app.post("/api/v1/jobs", tags=["jobs"], status_code=202, responses=_PROBLEMS, response_model=JobState)
    async def submit(ask: AnyAsk, request: Request) -> Response:
        """Take a job on: generate, search, relax or evaluate."""
        server.check_writes()
        record = server.runner.checked(ask)
        job = jobs.submit(record, server.address_of(request), server.runner.origin(record))
        return await state_of(job, 202)

    @app.post(
        "/api/v1/jobs/{name}/resume",
        tags=["jobs"],
        status_code=202,
        responses={**_PROBLEMS, 409: {"model": Problem, "description": "It is over, or began elsewhere."}},
        response_model=JobState,
    )
    async def resume(name: str, request: Request) -> Response:
        """Go on with a job that the end of the server has interrupted; the crystals that it has found stay.

        The request needs no body, but the header Content-Type: application/json. One that is under way
        already is left as it is.
        """
        job = await _found(server, name)
        _check_resumable(server, job)
        jobs.resume(job, server.address_of(request))
        return await state_of(job, 202)

    @app.get("/api/v1/jobs/{name}", tags=["jobs"], responses=_PROBLEMS, response_model=JobState)
    async def state(name: str) -> Response:
        """The state of a job, and all crystals that it has found."""
        return await state_of(await _found(server, name))

    @app.delete("/api/v1/jobs/{name}", tags=["jobs"], responses=_PROBLEMS, response_model=JobState)
    async def cancel(name: str) -> Response:
        """End a job; the crystals that it has found stay."""
        job = await _found(server, name)
        jobs.cancel(job)
        if job.task is not None:
            await _ended(job)
        return await state_of(job)

    @app.get(
        "/api/v1/jobs/{name}/events",
        tags=["jobs"],
        responses={**_PROBLEMS, 200: {"content": {"text/event-stream": {}}}},
        response_class=StreamingResponse,
    )
    async def events(name: str, request: Request) -> StreamingResponse:
        """What happens to a job, as server-sent events.

        They are `state`, `position`, `crystal`, `update`, `curve`, and of a search `progress`.
        With the header Last-Event-ID it goes on behind that event.
        """
        job = await _found(server, name)
        address = server.address_of(request)
        try:
            server.streams.take(address)
        except NoSlotError:
            raise BusyError("too many clients follow jobs: ask for the state from time to time", 10) from None
        last = request.headers.get("last-event-id", "")
        after = int(last) if last.isascii() and last.isdecimal() and len(last) < 9 else 0
        return _Stream(_events(server, job, after), lambda: server.streams.leave(address))

    async def state_of(job: Job, status: int = 200) -> Response:
        # A large job is megabytes of JSON: another thread reads and writes them, so that no stream waits.
        body = await asyncio.to_thread(_state, job, list(job.lines), jobs.position(job))
        return Response(body, status, media_type="application/json")


def _state(job: Job, lines: list[str], position: int | None) -> str:
    """The state of a job as JSON."""
    told = ("state", "total", "note", "message", "crystals", "curve", "progress")
    known = {name: value for name, value in view(lines).items() if name in told}
    state = JobState(id=job.name, ask=job.ask, created=job.created, position=position, **known)
    return state.model_dump_json()


def _check_resumable(server: Server, job: Job) -> None:
    """Whether a job can be gone on with here, as it was begun.

    Raises:
        HTTPException: it is over for good, or began on a server that is unlike this one.
        InputError: this server does no longer what it asks for.
        CrystallmError: the network cannot write.
    """
    if not job.over:
        return
    if job.state != INTERRUPTED:
        raise HTTPException(409, f"the job is {job.state}: only one that is interrupted can be gone on with")
    if job.origin != server.runner.origin(job.ask):
        raise HTTPException(
            409, "the job began with other weights or another version than this server has: ask for it anew"
        )
    server.check_writes()
    server.runner.checked(schemas.of_record(job.ask))


async def _ended(job: Job) -> None:
    until = time.monotonic() + 5.0
    while not job.over and time.monotonic() < until:
        await job.news(0.5)


class _Stream(StreamingResponse):
    """Events, and what is to be done when the client has gone, even if it has before the first of them."""

    def __init__(self, events: AsyncIterator[str], left: Callable[[], None]) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._left()


async def _events(server: Server, job: Job, after: int) -> AsyncIterator[str]:
    yield "retry: 2000\n\n"
    async for number, line in server.jobs.follow(job, after):
        if not line:
            yield ": still here\n\n"
            continue
        event = json.loads(line)["event"] if number == 0 else line[10 : line.index('"', 10)]
        data = line[line.index('"data":') + 7 : -1].strip()
        head = f"id: {number}\n" if number else ""
        yield f"{head}event: {event}\ndata: {data}\n\n"


async def _found(server: Server, name: str) -> Job:
    job = await server.jobs.get(name)
    if job is None:
        raise HTTPException(404, "no such job: it was never there, or has been forgotten")
    return job


def _add_crystals(app: FastAPI, server: Server) -> None:
    async def sheet(name: str, number: int, *, after_relaxation: bool = False) -> dict[str, Any]:
        job = await _found(server, name)
        crystals = (await asyncio.to_thread(view, list(job.lines)))["crystals"]
        found: dict[str, Any] | None = next((one for one in crystals if one["number"] == number), None)
        if found is None:
            raise HTTPException(404, f"the job has no crystal {number}")
        if after_relaxation:
            if not found.get("relaxed"):
                raise HTTPException(404, f"crystal {number} was not relaxed")
            return {**found["relaxed"], "number": number}
        return found

    @contextmanager
    def place() -> Iterator[None]:
        try:
            with server.files.one():
                yield
        except NoSlotError:
            raise BusyError("too many files are being made: try again in a few seconds", 5) from None

    def solid(one: dict[str, Any]) -> dict[str, Any]:
        if "structure" not in one:
            raise HTTPException(409, f"what was written is no crystal: {one.get('broken', '')}")
        return one

    @app.get("/api/v1/jobs/{name}/crystals/{number}", tags=["crystals"], responses=_PROBLEMS)
    async def crystal(name: str, number: int) -> dict[str, Any]:
        """All that is known of a crystal."""
        return await sheet(name, number)

    @app.get("/api/v1/jobs/{name}/crystals/{number}/pattern", tags=["crystals"], responses=_PROBLEMS)
    async def pattern(name: str, number: int, relaxed: bool = False) -> dict[str, Any]:
        """Its powder X-ray pattern."""
        with place():
            one = solid(await sheet(name, number, after_relaxation=relaxed))
            return await server.runner.pattern(one["structure"])

    @app.get(
        "/api/v1/jobs/{name}/crystals/{number}/file",
        tags=["crystals"],
        responses=_PROBLEMS,
        response_class=Response,
    )
    async def file(
        name: str, number: int, form: Literal["cif", "poscar", "extxyz"] = "cif", relaxed: bool = False
    ) -> Response:
        """It as a CIF, POSCAR or extended XYZ."""
        with place():
            one = solid(await sheet(name, number, after_relaxation=relaxed))
            text = one["cif"] if form == "cif" else (await server.runner.files([one]))[0][form]
        media, ending = _MEDIA[form]
        return Response(
            text,
            media_type=media,
            headers={"content-disposition": f'attachment; filename="{_file_name(one)}.{ending}"'},
        )

    @app.get("/api/v1/jobs/{name}/archive", tags=["crystals"], responses=_PROBLEMS, response_class=Response)
    async def archive(name: str) -> Response:
        """All crystals of a job in all forms, with what is known of them, as a zip."""
        with place():
            job = await _found(server, name)
            known = await asyncio.to_thread(view, list(job.lines))
            solids = [one for one in known["crystals"] if "structure" in one]
            written = await server.runner.files(solids) if solids else []
            content = await asyncio.to_thread(_zipped, job, known, solids, written)
        return Response(
            content,
            media_type="application/zip",
            headers={"content-disposition": f'attachment; filename="crystals-{job.name}.zip"'},
        )


def _file_name(one: Mapping[str, Any]) -> str:
    return f"{one['formula']}-sg{one.get('space_group_number', 1)}-{one['number']:04d}"


def _zipped(
    job: Job, known: dict[str, Any], solids: Sequence[dict[str, Any]], written: Sequence[dict[str, str]]
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for one, forms in zip(solids, written, strict=True):
            for form in crystal_tasks.FORMS:
                archive.writestr(f"{form}/{_file_name(one)}.{_MEDIA[form][1]}", forms[form])
            if one.get("relaxed"):
                archive.writestr(f"relaxed/{_file_name(one)}.cif", one["relaxed"]["cif"])
        left_out = ("view", "tokens", "structure", "cif")
        rows = [{k: v for k, v in one.items() if k not in left_out} for one in known["crystals"]]
        for row in rows:
            if row.get("relaxed"):
                row["relaxed"] = {k: v for k, v in row["relaxed"].items() if k not in left_out}
        content = {"ask": job.ask, "state": known["state"], "crystals": rows}
        archive.writestr("crystals.json", json.dumps(content, indent=1, ensure_ascii=False))
    return buffer.getvalue()
