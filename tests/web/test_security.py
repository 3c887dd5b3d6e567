"""Requests that no client should send: each is rejected with a message, and the server stays up."""

from __future__ import annotations

import json
import select
import socket
import time

import pytest

GOOD = {"kind": "generate", "formula": "TiO2", "z": 2, "n": 1, "seed": 1}
JOBS = "/api/v1/jobs"
JSON = {"Content-Type": "application/json"}
SCRIPT = "<script>alert(1)</script>"
NAME = "A" * 16
DEEP = "[" * 50_000

BODIES = {
    "empty": b"",
    "no JSON": b"{",
    "a number": b"7",
    "null": b"null",
    "a list": b"[]",
    "deep": DEEP.encode(),
    "bytes": bytes(range(256)),
    "huge number": b'{"kind":"generate","formula":"TiO2","n":1e999}',
    "many digits": b'{"kind":"generate","formula":"TiO2","n":' + b"9" * 5000 + b"}",
    "not a number": b'{"kind":"generate","formula":"TiO2","temperature":NaN}',
    "large": b'{"kind":"generate","formula":"' + b"A" * 300_000 + b'"}',
}
"""Bodies that are not requests, by name."""

REQUESTS = {
    "no kind": {"formula": "TiO2"},
    "unknown kind": {**GOOD, "kind": "train"},
    "kind of a list": {**GOOD, "kind": ["generate"]},
    "unknown field": {**GOOD, "device": "cuda"},
    "dunder": {**GOOD, "__class__": "x"},
    "no formula": {"kind": "generate"},
    "formula of a number": {**GOOD, "formula": 7},
    "formula of null": {**GOOD, "formula": None},
    "empty formula": {**GOOD, "formula": ""},
    "blank formula": {**GOOD, "formula": "   "},
    "long formula": {**GOOD, "formula": "TiO2" * 200},
    "script": {**GOOD, "formula": SCRIPT},
    "path": {**GOOD, "formula": "../../etc/passwd"},
    "nul": {**GOOD, "formula": "TiO2\x00"},
    "lone surrogate": {**GOOD, "formula": "Ti\ud800O2"},
    "right to left": {**GOOD, "formula": "\u202eTiO2"},
    "billion atoms": {**GOOD, "formula": "Ti1000000000"},
    "too many atoms": {**GOOD, "formula": "Ti150O300", "z": None},
    "many brackets": {**GOOD, "formula": "(" * 99 + "Ti"},
    "many elements": {**GOOD, "formula": "HHeLiBeBCNOFNeNaMgAlSiPSClArKCa", "z": 20},
    "z of a text": {**GOOD, "z": "2"},
    "z of true": {**GOOD, "z": True},
    "z of a half": {**GOOD, "z": 0.5},
    "z below": {**GOOD, "z": 0},
    "z above": {**GOOD, "z": 10**9},
    "n of a text": {**GOOD, "n": "1"},
    "n below": {**GOOD, "n": -1},
    "n above": {**GOOD, "n": 65},
    "n far above": {**GOOD, "n": 2**63},
    "group of a list": {**GOOD, "space_group": [136]},
    "group above": {**GOOD, "space_group": 231},
    "no group": {**GOOD, "space_group": "'; DROP TABLE groups"},
    "misfit": {**GOOD, "space_group": 225},
    "temperature below": {**GOOD, "temperature": -1},
    "temperature above": {**GOOD, "temperature": 1e300},
    "top_k below": {**GOOD, "top_k": 0},
    "top_p above": {**GOOD, "top_p": 1.5},
    "seed below": {**GOOD, "seed": -1},
    "seed above": {**GOOD, "seed": 2**64},
    "model by path": {**GOOD, "model": "/etc/passwd"},
    "model above": {**GOOD, "model": "../../weights"},
    "energy by module": {**GOOD, "energy": "os:system"},
    "energy elsewhere": {**GOOD, "energy": "tcp://127.0.0.1:22"},
    "relax alone": {**GOOD, "relax": True},
    "relax of a text": {**GOOD, "relax": "yes"},
    "no structures": {"kind": "evaluate", "structures": []},
    "structures of a text": {"kind": "evaluate", "structures": "data_"},
    "many structures": {"kind": "evaluate", "structures": ["data_x"] * 9},
    "structures of numbers": {"kind": "relax", "structures": [1]},
    "structures by path": {"kind": "evaluate", "structures": ["x"], "path": "/etc"},
    "check unknown": {"kind": "evaluate", "structures": ["x"], "read_as": "me"},
    "steps above": {"kind": "relax", "structures": ["x"], "steps": 10**6},
}
"""Requests that cannot be done, by name."""

PATHS = {
    "other job": f"{JOBS}/{NAME}",
    "job above": f"{JOBS}/..%2f..%2fetc%2fpasswd",
    "job with dots": f"{JOBS}/../../../../etc/passwd",
    "job of a script": f"{JOBS}/%3Cscript%3E",
    "events of no job": f"{JOBS}/{NAME}/events",
    "file of no job": f"{JOBS}/{NAME}/crystals/0/file",
    "number of a text": f"{JOBS}/{NAME}/crystals/zero",
    "page above": "/../../../etc/passwd",
    "encoded page above": "/%2e%2e/%2e%2e/etc/passwd",
    "source of the page": "/../app.py",
    "no reading": "/api/v1/reading",
    "long reading": "/api/v1/reading?formula=" + "Ti" * 300,
    "long address": "/api/v1/about?" + "a" * 5000,
}
"""Addresses that do not exist."""


@pytest.fixture(autouse=True)
def _stays_up(served):
    yield
    assert served.get("/healthz").json == {"status": "ok"}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_not_a_request(name, served):
    answer = served.send("POST", JOBS, BODIES[name], JSON)
    assert answer.status in (400, 413, 422)
    assert answer.error["message"]


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_that_cannot_be_done(name, served):
    answer = served.post(REQUESTS[name])
    assert answer.status == 422
    assert 0 < len(answer.error["message"]) <= 300
    assert answer.headers["content-type"] == "application/json"  # so that no browser reads it as a page
    assert "Traceback" not in answer.body.decode()


@pytest.mark.parametrize("name", PATHS)
def test_an_address_that_does_not_exist(name, served):
    answer = served.get(PATHS[name])
    assert answer.status in (400, 404, 414, 422)
    assert b"root:" not in answer.body
    assert b"<script" not in answer.body


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_an_unknown_method(method, served):
    assert 400 <= served.send(method, JOBS, headers=JSON).status < 500


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_what_a_form_of_another_site_could_send(kind, served):
    headers = {"Content-Type": kind} if kind else {}
    assert served.send("POST", JOBS, json.dumps(GOOD).encode(), headers).status == 415


def raw(served, *parts: bytes, pause: float = 0.0) -> bytes:
    """Return the answer of the server to bytes."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
        found = b""
        try:
            for part in parts:
                connection.sendall(part)
                if select.select([connection], [], [], pause)[0]:
                    break  # it has answered, or hung up
            while piece := connection.recv(65536):
                found += piece
                if b"}}" in found or b"Invalid HTTP" in found:
                    break
        except OSError:
            pass  # the server hangs up on what is too much
        return found


HEAD = f"POST {JOBS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()


def test_a_body_that_does_not_come(served):
    assert b" 408 " in raw(served, HEAD + b"Content-Length: 100\r\n\r\n", b'{"kind":')


def test_a_body_that_comes_by_drops(served):
    parts = [b"1\r\na\r\n"] * 12
    assert b" 408 " in raw(served, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *parts, pause=0.2)


def test_a_body_larger_than_it_says(served):
    chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
    answer = raw(served, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 6)
    assert b" 413 " in answer or answer == b""


@pytest.mark.parametrize(
    "head",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        HEAD + b"Content-Length: 99999999999999999999\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    ],
)
def test_a_malformed_head(head, served):
    answer = raw(served, head)
    assert answer == b"" or answer.split()[1][:1] == b"4"


def test_streams_that_are_left(served):
    job = served.post({**GOOD, "n": 20}).json["id"]
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
            connection.sendall(f"GET {JOBS}/{job}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert connection.recv(20).startswith(b"HTTP/1.1 200")
    state = served.over(job)
    assert state["state"] == "done"
    deadline = time.monotonic() + 30
    while b"crystallm_streams 0.0\n" not in served.get("/metrics").body and time.monotonic() < deadline:
        time.sleep(0.2)
    assert b"crystallm_streams 0.0\n" in served.get("/metrics").body


def test_nothing_is_returned_as_markup(served):
    for path in (
        f"/{SCRIPT}",
        f"/api/v1/reading?formula={SCRIPT}",
        f"/api/v1/reading?formula=TiO2&space_group={SCRIPT}",
    ):
        answer = served.get(path.replace("<", "%3C").replace(">", "%3E"))
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_there_are_enough_of_them():
    assert len(BODIES) + len(REQUESTS) + len(PATHS) >= 60


def test_a_server_with_keys_requires_one(closed):
    request = {**GOOD, "n": 1}
    for wrong in ({}, {"Authorization": "Bearer no"}, {"Authorization": "Basic sesame-sesame-sesame"}):
        answer = closed.post(request, **wrong)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert closed.get("/metrics").status == 401
    assert closed.get("/").status == 200  # the page is no secret, and has a field for the key
    assert closed.get("/api/v1/about").json["keys"]
    assert closed.get("/api/v1/openapi.json").status == 200  # from which the reference is drawn
    key = {"Authorization": "Bearer sesame-sesame-sesame"}
    assert closed.post(request, **key).status == 202


@pytest.mark.parametrize(
    ("host", "status"), [("localhost:1", 200), ("crystals.example", 200), ("evil.example", 421)]
)
def test_a_server_answers_to_its_names(host, status, closed):
    assert closed.get("/healthz", Host=host).status == status


def test_every_answer_forbids_foreign_content(served):
    paths = ("/", "/api.html", "/js/main.js", "/api/v1/about", "/nothing", "/healthz", "/api/v1/jobs/nothing")
    for path in paths:
        headers = served.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers
