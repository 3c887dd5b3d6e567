"""Jobs on disk, and servers that are killed and started again."""

from __future__ import annotations

import json

import pytest

from crystallm.errors import CrystallmError
from crystallm.web.jobs.store import EVENTS, JobStore, last_state
from served import MORSE, Served

pytest.importorskip("fastapi", reason="the page needs fastapi")
pytest.importorskip("uvicorn", reason="the page needs uvicorn")


def test_a_killed_server_loses_no_finished_crystal(parrot, tmp_path):
    out = tmp_path / "out"
    server = Served(parrot, out)
    try:
        whole = server.done({"kind": "generate", "formula": "NaCl", "z": 4, "n": 2, "seed": 1})
        request = {
            "kind": "generate",
            "formula": "TiO2",
            "z": 2,
            "n": 60,
            "seed": 2,
            "energy": MORSE,
            "relax": True,
        }
        job = server.post(request).json["id"]
        seen = {}
        for _, name, data in server.events(job):
            if name == "crystal":
                seen[data["number"]] = data
            if len(seen) == 5:
                break
    finally:
        server.kill()
    path = out / "jobs" / job / "events.jsonl"
    with path.open("a") as file:
        file.write('{"event":"crystal","data":{"number":59,"ci')  # as a write that was cut off
    server = Served(parrot, out)
    try:
        state = server.get(f"/api/v1/jobs/{job}").json
        assert state["state"] == "interrupted"
        assert "resume it for the rest" in state["message"]
        found = {one["number"]: one for one in state["crystals"]}
        assert 59 not in found or "cif" in found[59]
        for number, summary in seen.items():
            assert found[number]["cif"] == summary["cif"]
            assert server.get(f"/api/v1/jobs/{job}/crystals/{number}/file").body.decode() == summary["cif"]
        assert server.get(f"/api/v1/jobs/{whole['id']}").json == whole
        events = list(server.events(job))
        assert events[-1][2]["state"] == "interrupted"
        again = server.done({**request, "n": 3, "energy": None, "relax": False})
        for one in again["crystals"]:
            if one["number"] in seen:
                assert one["cif"] == seen[one["number"]]["cif"]
    finally:
        server.end()
    lines = path.read_text().splitlines()
    assert all(json.loads(line) for line in lines)


def test_interrupted_jobs_are_resumed_and_end_like_uninterrupted_ones(parrot, tmp_path):
    out = tmp_path / "out"
    requests = [
        {"kind": "search", "formula": "TiO2", "z": 2, "simulations": 120, "seed": 4},
        {"kind": "generate", "formula": "TiO2", "z": 2, "n": 40, "seed": 2, "energy": MORSE},
    ]
    server = Served(parrot, out)
    try:
        jobs = []
        for request in requests:
            jobs.append(server.post(request).json["id"])
            next(number for number, name, _ in server.events(jobs[-1]) if name == "crystal")
        foreign = server.post({**requests[1], "n": 60}).json["id"]
    finally:
        server.kill()
    head = out / "jobs" / foreign / "request.json"
    head.write_text(head.read_text().replace('"origin": "', '"origin": "of other weights '))
    server = Served(parrot, out)
    try:
        before = [server.get(f"/api/v1/jobs/{job}").json for job in jobs]
        assert [state["state"] for state in before] == ["interrupted"] * 2
        for job in jobs:
            answer = server.resume(job)
            assert answer.status == 202, answer.body
            assert answer.json["state"] in ("queued", "running")
            assert answer.json["message"] is None
            assert server.resume(job).status == 202  # under way already: left as it is
        for job, request, cut in zip(jobs, requests, before, strict=True):
            ends = [data["state"] for _, name, data in server.events(job) if name == "state"]
            assert ends[-1] == "done"
            assert "interrupted" not in ends
            state = server.get(f"/api/v1/jobs/{job}").json
            whole = server.done(request)
            assert 0 < len(cut["crystals"]) < len(whole["crystals"])
            assert state["crystals"] == whole["crystals"]
            assert (state["note"], state["total"]) == (whole["note"], whole["total"])
            assert state["curve"][-1]["energy"] == whole["curve"][-1]["energy"]
            if request["kind"] == "search":
                assert (state["curve"], state["progress"]) == (whole["curve"], whole["progress"])
        assert server.resume(jobs[0]).status == 409
        assert "done" in server.resume(jobs[0]).error["message"]
        assert server.resume(foreign).status == 409
        assert "other weights" in server.resume(foreign).error["message"]
        assert server.resume("a" * 16).status == 404
        assert server.send("POST", f"/api/v1/jobs/{foreign}/resume").status == 415
    finally:
        server.end()


def test_a_server_with_a_broken_network_exits(parrot, tmp_path):
    import torch

    from crystallm.models import folder, load

    network = load.load_model(str(parrot), device="cpu").network
    with torch.no_grad():
        network.lm_head.weight.fill_(float("nan"))
    server = Served(folder.save(network, tmp_path / "broken"), tmp_path / "out")
    request = {"kind": "generate", "formula": "TiO2", "z": 2, "n": 2, "seed": 1}
    try:
        for _ in range(2):
            state = server.done(request)
            assert state["state"] == "failed"
            assert "not finite" in state["message"]
        assert server.post(request).status == 202
        assert server.process.wait(60) == 1
        assert "the network cannot sample any more" in server.log()
    finally:
        server.end()


def test_unfinished_jobs_are_found_by_their_last_event(tmp_path):

    store = JobStore(tmp_path / "out")
    crystal = json.dumps(
        {"event": "crystal", "data": {"number": 0, "cif": "x" * 10_000}}, separators=(",", ":")
    )
    state = '{"event":"state","data":{"state":"%s","time":1}}'
    ends = {
        "done-done-done-d": [state % "queued", crystal, state % "done"],
        "running-running-": [state % "queued", state % "running", crystal],
        "queued-queued-qu": [state % "queued"],
        "nothing-nothing-": [],
        "cancelled-cancel": [state % "cancelled"],
    }
    for name, lines in ends.items():
        store.create(name, {"kind": "generate"}, 0.0)
        for line in lines:
            store.append(name, line)
    assert {stored.id for stored in store.unfinished()} == {
        "running-running-",
        "queued-queued-qu",
        "nothing-nothing-",
    }


def test_a_line_is_stored_as_a_whole_or_not_at_all(tmp_path):
    import resource

    store = JobStore(tmp_path / "out")
    name = "full-full-full-f"
    store.create(name, {"kind": "generate"}, 0.0)
    first = '{"event":"state","data":{"state":"queued"}}'
    store.append(name, first)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # as a disk with so many bytes left
    try:
        with pytest.raises(CrystallmError, match="cannot be stored"):
            store.append(name, '{"event":"crystal","data":{"cif":"' + "x" * 200 + '"}}')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    path = tmp_path / "out" / "jobs" / name / EVENTS
    assert path.read_text() == first + "\n"
    last = '{"event":"state","data":{"state":"failed"}}'
    store.append(name, last)
    assert store.read(name).events == [first, last]


def test_incomplete_lines_are_removed(tmp_path):
    store = JobStore(tmp_path / "out")
    name = "torn-torn-torn-t"
    store.create(name, {"kind": "generate"}, 0.0)
    first = '{"event":"state","data":{"state":"running"}}'
    torn = '{"event":"state","data":{"st{"event":"state","data":{"state":"done"}}'
    path = tmp_path / "out" / "jobs" / name / EVENTS
    path.write_text(f"{first}\n{torn}\n7\n")
    assert last_state([first, torn]) == "running"
    (stored,) = store.unfinished()
    assert stored.events == [first]
    assert path.read_text() == first + "\n"


def test_old_jobs_are_deleted(tmp_path):
    import os
    import time

    store = JobStore(tmp_path / "out")
    names = [f"job-{i:012d}" for i in range(6)]
    for age, name in enumerate(names):
        store.create(name, {"kind": "generate"}, 0.0)
        when = time.time() - age * 3600
        os.utime(tmp_path / "out" / "jobs" / name / "request.json", (when, when))
    assert store.sweep(4.5, 4, set()) == 2
    assert sorted(store.ids()) == names[:4]
    assert store.sweep(0.5, 4, {names[2]}) == 2
    assert sorted(store.ids()) == [names[0], names[2]]


@pytest.mark.parametrize("name", ["../../etc", "", "a" * 15, "a" * 17, "a/b" * 5 + "c", "..............\n."])
def test_no_id_leads_out_of_the_folder(name, tmp_path):

    store = JobStore(tmp_path / "out")
    (tmp_path / "request.json").write_text("{}")
    assert store.read(name) is None
    store.delete(name)
    assert (tmp_path / "request.json").exists()
