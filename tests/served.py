"""A server in a process of its own, and a plain client of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OVER = {"done", "failed", "cancelled", "interrupted"}
MORSE, SLOW = "energies:morse", "energies:slow"


class Answer(NamedTuple):
    """An answer of the server."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]


class Served:
    """A running server.

    Args:
        model: folder of weights.
        out: folder of its jobs.
        options: further ones of the command line.
        port: where it listens; a free one unless it replaces another server.
    """

    def __init__(self, model: Path, out: Path, *options: str, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        self._log = (out.parent / f"{out.name}.log").open("w+")
        self.process = subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-m",
                    "crystallm",
                    "serve",
                    "--port",
                    str(self.port),
                    "--models",
                    str(model),
                ),
                *("--out", str(out), "--energy-models", f"{MORSE},{SLOW}", "--check-workers", "1", *options),
            ],
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that a signal to it is none to us
        )
        until = time.monotonic() + 300
        while time.monotonic() < until:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError):
                if self.send("GET", "/healthz").status == 200:
                    return
            time.sleep(0.1)
        self.end()
        raise AssertionError(f"the server did not start: {self.log()}")

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> str:
        self._log.flush()
        self._log.seek(0)
        return self._log.read()

    def kill(self) -> None:
        """As a machine that loses its power."""
        self.process.kill()
        self.process.wait()
        self._log.close()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._log.close()

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = 60.0,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, headers=headers)

    def post(self, request: Any, **headers: str) -> Answer:
        head = {"Content-Type": "application/json", **headers}
        return self.send("POST", "/api/v1/jobs", json.dumps(request).encode(), head)

    def resume(self, job: str) -> Answer:
        return self.send("POST", f"/api/v1/jobs/{job}/resume", headers={"Content-Type": "application/json"})

    def events(self, job: str, after: int = 0) -> Iterator[tuple[int, str, Any]]:
        """(Number, event, data) of a job, until the server ends the stream."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", f"/api/v1/jobs/{job}/events", headers={"Last-Event-ID": str(after)})
            response = connection.getresponse()
            assert response.status == 200
            found: dict[str, str] = {}
            for line in response:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    found[name] = value
                elif "data" in found:
                    yield int(found.get("id", 0)), found["event"], json.loads(found["data"])
                    found = {}
        finally:
            connection.close()

    def done(self, request: Any) -> dict[str, Any]:
        """The state of a job when it is over."""
        answer = self.post(request)
        assert answer.status == 202, answer.body
        return self.over(answer.json["id"])

    def over(self, job: str) -> dict[str, Any]:
        for _ in self.events(job):
            pass
        state: dict[str, Any] = self.get(f"/api/v1/jobs/{job}").json
        assert state["state"] in OVER
        return state


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
