"""Each kind of job has its function."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi", reason="the page needs fastapi")

from crystallm.web import schemas
from crystallm.web.jobs import runner
from crystallm.web.jobs.fair_pool import OWNER


def test_a_job_runs_by_its_kind(monkeypatch):
    calls = []

    def recorder(kind):
        async def run(services, job, request):
            calls.append((kind, services, job.request["kind"], type(request), OWNER.get()))

        return run

    monkeypatch.setattr(runner, "_RUN", {model: recorder(kind) for kind, model in schemas.KINDS.items()})
    for kind, model in schemas.KINDS.items():
        (example,) = model.model_config["json_schema_extra"]["examples"]
        job = SimpleNamespace(request=example, id="job", address="here")
        asyncio.run(runner.run_job("services", job))
        assert calls.pop() == (kind, "services", kind, model, ("here", "job"))


def test_every_kind_has_a_function():
    assert set(runner._RUN) == set(schemas.KINDS.values())
