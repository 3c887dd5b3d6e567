"""What jobs share: energies, duplicates, and tasks that fail."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("fastapi", reason="the page needs fastapi")

from crystallm.energy.relaxation import RelaxOptions
from crystallm.execution.tasks import TaskError
from crystallm.structures import conversion
from crystallm.version import __version__
from crystallm.web.jobs import services as web_services
from crystallm.web.jobs.services import JobServices
from crystallm.web.metrics import Metrics
from crystallm.web.options import ServerLimits
from energies import Morse
from served import MORSE


@pytest.fixture(scope="module")
def services():
    services = JobServices({}, [MORSE], ServerLimits(), Metrics(), check_workers=1)
    yield services
    services.close()


def test_energies_are_those_of_the_model_and_relaxation_lowers_them(services, textbook_structures):
    structure = textbook_structures["rocksalt"]
    record = conversion.to_json(structure)
    (expected,) = Morse().predict([structure])

    async def work():
        energy = await services.energy(record, MORSE)
        return energy, await services.relax(record, MORSE, RelaxOptions(steps=3))

    energy, relaxed = asyncio.run(work())
    assert energy == {"energy": pytest.approx(expected.energy)}
    assert relaxed["relaxed"]["energy_before"] == pytest.approx(expected.energy)
    assert relaxed["energy"] == relaxed["relaxed"]["energy"] <= expected.energy


def test_an_energy_that_fails_has_a_reason(services, textbook_structures):
    record = conversion.to_json(textbook_structures["rocksalt"])
    answer = asyncio.run(services.energy(record, "energies:nan"))
    assert answer["energy"] is None
    assert answer["energy_reason"]


def test_duplicates_have_the_same_cluster(services, textbook_structures):
    rocksalt = textbook_structures["rocksalt"]
    larger = rocksalt.copy()
    larger.scale_lattice(1.01 * rocksalt.volume)
    other = rocksalt.copy()
    other.translate_sites([0], [0.2, 0.2, 0.2])
    records = [conversion.to_json(s) for s in (rocksalt, other, larger, rocksalt)]
    first, second, third, fourth, missing = asyncio.run(services.clusters([*records, None]))
    assert first == third == fourth != second
    assert missing is None


def test_a_task_that_fails_gives_its_reason(services, monkeypatch):
    async def fail(*_, **__):
        raise TaskError("took too long")

    monkeypatch.setattr(services, "_call", fail)
    summary = asyncio.run(services.uploaded_summary("data_x", "text"))
    assert summary == {
        "broken": "took too long",
        "valid": False,
        "plausible": False,
        "reasons": ["not checked: took too long"],
    }
    assert asyncio.run(services.uploaded_summary("data_x")) == {"broken": "took too long"}


def test_the_origin_of_a_job_without_a_model_is_the_version(services):
    assert services.origin({"kind": "relax"}) == __version__
    assert services.origin({"model": "gone"}) == f"{__version__} "


def test_a_stopped_search_is_known_to_be_stopped():
    stop = web_services.StopSignal()
    killed = []
    stop.kill = lambda: killed.append(True)
    assert not stop.is_set()
    stop.set()
    assert stop.is_set()
    assert killed == [True]
