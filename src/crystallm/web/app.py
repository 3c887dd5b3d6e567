"""The application of a server: its routes, errors and static files."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as StarletteHTTPException

from crystallm.errors import CrystallmError, InputError
from crystallm.execution.tasks import TaskError
from crystallm.version import __version__
from crystallm.web import crystal_routes, formula_check, job_routes, schemas
from crystallm.web.jobs.job import BusyError
from crystallm.web.security import Guard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from crystallm.web.security import Application
    from crystallm.web.server import Server

STATIC = Path(__file__).parent / "static"
_MAX_MESSAGE = 300  # characters


def create_app(server: Server) -> Application:
    """Return the ASGI application of a server."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        server.services.start()
        server.jobs.open()
        yield
        await server.jobs.close()
        server.services.close()

    app = FastAPI(
        title="crystallm",
        version=__version__,
        summary="Plausible crystal structures from a chemical formula.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.server = server
    _add_error_handlers(app)
    _add_server_routes(app, server)
    app.include_router(job_routes.router)
    app.include_router(crystal_routes.router)
    app.mount("/", StaticFiles(directory=STATIC, html=True), name="page")
    return Guard(app, server.limits, server.metrics, server.hosts, server.keys)


def _problem(status: int, message: str, field: str | None = None, **headers: str) -> JSONResponse:
    content = {"error": {"message": message[:_MAX_MESSAGE], "field": field}}
    return JSONResponse(content, status, headers=headers)


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"] if part not in ("body", "query", *schemas.KINDS)]
        if first["type"] == "json_invalid":
            return _problem(422, f"the body is no JSON: {first['ctx']['error'][:100]}")
        message = first["msg"][:1].lower() + first["msg"][1:]
        if first["type"] == "extra_forbidden":
            message = "there is no such field"
        field = path[0][:60] if path else None
        return _problem(422, f"{field}: {message}" if field else message, field)

    @app.exception_handler(InputError)
    async def wrong_input(_: Request, error: InputError) -> JSONResponse:
        return _problem(422, str(error), getattr(error, "field", None))

    @app.exception_handler(BusyError)
    async def busy(_: Request, error: BusyError) -> JSONResponse:
        return _problem(429, str(error), **{"Retry-After": str(error.retry_after)})

    @app.exception_handler(CrystallmError)
    async def failed(_: Request, error: CrystallmError) -> JSONResponse:
        return _problem(503, str(error), **{"Retry-After": "30"})

    @app.exception_handler(TaskError)
    async def task_failed(_: Request, error: TaskError) -> JSONResponse:
        return _problem(503, f"this could not be computed: {error.reason}")

    @app.exception_handler(StarletteHTTPException)
    async def http_error(_: Request, error: StarletteHTTPException) -> JSONResponse:
        return _problem(error.status_code, str(error.detail), **dict(error.headers or {}))


def _add_server_routes(app: FastAPI, server: Server) -> None:
    facts = server.about()

    @app.get("/healthz", tags=["server"])
    async def healthz() -> JSONResponse:
        """Whether crystals can be generated."""
        broken = server.services.broken
        return JSONResponse({"status": "broken" if broken else "ok"}, 503 if broken else 200)

    @app.get("/metrics", tags=["server"], response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        """Counters and gauges in the text format of Prometheus."""
        media_type = "text/plain; version=0.0.4; charset=utf-8"
        return PlainTextResponse(server.metrics.text(), media_type=media_type)

    @app.get("/api/v1/about", tags=["server"])
    async def about() -> dict[str, Any]:
        """Models, energy models, limits, elements and space groups of this server."""
        return facts

    @app.get("/api/v1/reading", tags=["server"], responses=schemas.PROBLEMS)
    def reading(
        formula: Annotated[str, Query(min_length=1, max_length=200, examples=["TiO2"])],
        z: Annotated[str | None, Query(max_length=8, description="A number or auto.")] = None,
        space_group: Annotated[str | None, Query(max_length=30)] = None,
    ) -> dict[str, Any]:
        """How a formula is interpreted: the cell, possible Z, which space groups can hold it."""
        return formula_check.read(formula, z or None, space_group or None, server.limits.max_cell_atoms)
