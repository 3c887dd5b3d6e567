"""Routes of crystals: summaries, powder patterns, files and archives."""

from __future__ import annotations

import asyncio
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from fastapi import APIRouter, HTTPException
from fastapi.responses import Response

from crystallm.web.job_routes import ThisServer, find_job
from crystallm.web.jobs import crystal_tasks
from crystallm.web.jobs.job import BusyError, Job, combine_events
from crystallm.web.rate_limits import NoSlotError
from crystallm.web.schemas import PROBLEMS
from crystallm.web.server import Server

router = APIRouter(prefix="/api/v1/jobs/{job_id}", tags=["crystals"], responses=PROBLEMS)
_MEDIA = {
    "cif": ("chemical/x-cif", "cif"),
    "poscar": ("text/plain; charset=utf-8", "vasp"),
    "extxyz": ("chemical/x-xyz", "extxyz"),
}
"""Media type and file ending by format."""


@router.get("/crystals/{number}")
async def crystal(job_id: str, number: int, server: ThisServer) -> dict[str, Any]:
    """All that is known of a crystal."""
    return await _summary(server, job_id, number)


@router.get("/crystals/{number}/pattern")
async def pattern(job_id: str, number: int, server: ThisServer, relaxed: bool = False) -> dict[str, Any]:
    """The powder X-ray pattern of a crystal."""
    with _file_slot(server):
        summary = _with_structure(await _summary(server, job_id, number, relaxed=relaxed))
        task = {"structure": summary["structure"]}
        found: dict[str, Any] = await server.services.check(crystal_tasks.powder_pattern, task)
        return found


@router.get("/crystals/{number}/file", response_class=Response)
async def file(
    job_id: str,
    number: int,
    server: ThisServer,
    form: Literal["cif", "poscar", "extxyz"] = "cif",
    relaxed: bool = False,
) -> Response:
    """A crystal as CIF, POSCAR or extended XYZ."""
    with _file_slot(server):
        summary = _with_structure(await _summary(server, job_id, number, relaxed=relaxed))
        text = summary["cif"] if form == "cif" else (await _files(server, [summary]))[0][form]
    media_type, ending = _MEDIA[form]
    return _attachment(text, media_type, f"{_file_name(summary)}.{ending}")


@router.get("/archive", response_class=Response)
async def archive(job_id: str, server: ThisServer) -> Response:
    """All crystals of a job in all formats, with what is known of them, as a zip."""
    with _file_slot(server):
        job = await find_job(server, job_id)
        results = await asyncio.to_thread(combine_events, list(job.events))
        summaries = [summary for summary in results["crystals"] if "structure" in summary]
        files = await _files(server, summaries) if summaries else []
        content = await asyncio.to_thread(_zip, job, results, summaries, files)
    return _attachment(content, "application/zip", _archive_name(job.request))


async def _summary(server: Server, job_id: str, number: int, *, relaxed: bool = False) -> dict[str, Any]:
    """Return the summary of a crystal, or of its relaxed structure; an HTTPException if there is none."""
    job = await find_job(server, job_id)
    crystals = (await asyncio.to_thread(combine_events, list(job.events)))["crystals"]
    summary: dict[str, Any] | None = next((c for c in crystals if c["number"] == number), None)
    if summary is None:
        raise HTTPException(404, f"the job has no crystal {number}")
    if not relaxed:
        return summary
    if not summary.get("relaxed"):
        raise HTTPException(404, f"crystal {number} was not relaxed")
    return {**summary["relaxed"], "number": number}


def _with_structure(summary: dict[str, Any]) -> dict[str, Any]:
    if "structure" not in summary:
        raise HTTPException(409, f"this sample is not a crystal: {summary.get('broken', '')}")
    return summary


@contextmanager
def _file_slot(server: Server) -> Iterator[None]:
    try:
        with server.files.hold():
            yield
    except NoSlotError:
        raise BusyError("too many files are being written: try again in a few seconds", 5) from None


async def _files(server: Server, summaries: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return crystals in all formats; a TaskError if that takes too long."""
    crystals = []
    for summary in summaries:
        # The energy of a relaxed crystal is not that of the structure in its summary.
        energy = (summary.get("relaxed") or {}).get("energy_before", summary.get("energy"))
        crystals.append({name: summary.get(name) for name in ("cif", "structure", "formula")})
        crystals[-1]["energy"] = energy
    files: list[dict[str, str]] = await server.services.check(
        crystal_tasks.crystal_files, {"crystals": crystals}
    )
    return files


def _attachment(content: str | bytes, media_type: str, name: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=media_type, headers=headers)


def _archive_name(request: Mapping[str, Any]) -> str:
    """Return the name of the archive of a job: of what was requested, with the seed that gives it again."""
    what = request.get("formula") or request.get("elements") or "crystals"
    parts = [str(what), *(["search"] if request["kind"] == "search" else [])]
    parts += [f"seed{request['seed']}"] if request.get("seed") is not None else [request["kind"]]
    return re.sub(r"[^A-Za-z0-9.-]+", "_", "-".join(parts)) + ".zip"


def _file_name(summary: Mapping[str, Any]) -> str:
    return f"{summary['formula']}-sg{summary.get('space_group_number', 1)}-{summary['number']:04d}"


def _zip(
    job: Job,
    results: Mapping[str, Any],
    summaries: Sequence[Mapping[str, Any]],
    files: Sequence[Mapping[str, str]],
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for summary, texts in zip(summaries, files, strict=True):
            name = _file_name(summary)
            for form in crystal_tasks.FORMATS:
                target.writestr(f"{form}/{name}.{_MEDIA[form][1]}", texts[form])
            if summary.get("relaxed"):
                target.writestr(f"relaxed/{name}.cif", summary["relaxed"]["cif"])
        crystals = [_facts(summary) for summary in results["crystals"]]
        content = {"request": job.request, "state": results["state"], "crystals": crystals}
        target.writestr("crystals.json", json.dumps(content, indent=1, ensure_ascii=False))
    return buffer.getvalue()


def _facts(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return a summary without what the files hold."""
    facts = {k: v for k, v in summary.items() if k not in ("view", "tokens", "structure", "cif")}
    if facts.get("relaxed"):
        facts["relaxed"] = _facts(facts["relaxed"])
    return facts
