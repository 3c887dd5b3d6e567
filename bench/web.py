"""Crystals a second that the server gives to one client and to many at once; and whether its memory grows.

    python bench/web.py --clients 50 --seconds 180 --jobs 2000

starts `crystallm serve` on this machine's loopback alone, with the bundled model, and asks it:

1. one client, one crystal a job, one job after the other, for a quarter of the time;
2. many clients at once, n = 4, each with its next job as soon as the last is over, and again after
   `Retry-After` where it is told to come later;
3. jobs of one crystal until there have been so many in all; the server's memory is read on the way.

Prints JSON: crystals a second of both, their ratio, answers by status, failures, times from the request to
the last crystal, and resident memory (MiB) by number of jobs. Seconds are those of the clock: run it on a
quiet machine.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

FORMULAS = (
    ("TiO2", 2),
    ("NaCl", 4),
    ("SrTiO3", 1),
    ("ZnS", 2),
    ("MgAl2O4", 2),
    ("LiCoO2", 3),
    ("SiC", 4),
    ("CaF2", 4),
)
MOST_SECONDS, MOST_CLIENTS, MOST_JOBS = 600.0, 200, 20_000


class Client:
    """One connection, kept open; counts what it is told."""

    def __init__(self, port: int, totals: Totals) -> None:
        self.port = port
        self.totals = totals
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body; a connection that broke counts as a failure."""
        data = None if body is None else json.dumps(body).encode()
        self.connection.request(method, path, data, {"Content-Type": "application/json"})
        response = self.connection.getresponse()
        content = response.read()
        self.totals.statuses[response.status] += 1
        return response.status, dict(response.getheaders()), content

    def job(self, seed: int, n: int, until: float) -> bool:
        """One job to its end; False if the time is over before it was taken on."""
        formula, z = FORMULAS[seed % len(FORMULAS)]
        body = {"kind": "generate", "formula": formula, "z": z, "n": n, "seed": seed}
        begun = time.perf_counter()
        while True:
            status, headers, content = self.ask("POST", "/api/v1/jobs", body)
            if status == 202:
                break
            if status != 429:
                self.totals.failures.append(f"{status}: {content[:100]!r}")
                return True
            if time.perf_counter() + float(headers.get("retry-after", 1)) > until:
                return False
            time.sleep(min(float(headers.get("retry-after", 1)), 5.0))
        name = json.loads(content)["id"]
        # The stream is read to its end: the server closes it with the job.
        status, _, content = self.ask("GET", f"/api/v1/jobs/{name}/events")
        crystals = content.count(b"\nevent: crystal\n")
        if status != 200 or b'"state":"done"' not in content or crystals != n:
            self.totals.failures.append(f"job {name}: {status}, {crystals} of {n} crystals")
        with self.totals.lock:
            self.totals.crystals += crystals
            self.totals.jobs += 1
            self.totals.times.append(time.perf_counter() - begun)
        return True


class Totals:
    """What all clients of a phase have seen."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.crystals = self.jobs = 0
        self.times: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.failures: list[str] = []

    def record(self, seconds: float) -> dict[str, Any]:
        """As plain values."""
        times = sorted(self.times) or [0.0]
        return {
            "jobs": self.jobs,
            "crystals": self.crystals,
            "crystals_per_second": round(self.crystals / seconds, 2),
            "median_seconds": round(statistics.median(times), 3),
            "p95_seconds": round(times[int(0.95 * (len(times) - 1))], 3),
            "statuses": {str(status): n for status, n in sorted(self.statuses.items())},
            "failures": len(self.failures),
            "first_failures": self.failures[:5],
        }


def phase(port: int, clients: int, n: int, seconds: float, jobs: int | None = None) -> dict[str, Any]:
    """Clients at work for so long, or for so many jobs."""
    totals = Totals()
    begun = time.perf_counter()
    until = begun + seconds
    numbers = iter(range(10**9))
    lock = threading.Lock()

    def work() -> None:
        client = Client(port, totals)
        while time.perf_counter() < until:
            with lock:
                seed = next(numbers)
            if jobs is not None and seed >= jobs:
                break
            try:
                if not client.job(seed, n, until):
                    break
            except (OSError, http.client.HTTPException) as error:
                totals.failures.append(f"{type(error).__name__}: {error}")
                client = Client(port, totals)
        client.connection.close()

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return totals.record(time.perf_counter() - begun)


def memory(port: int) -> float:
    """Resident memory of the server's process, MiB."""
    _, _, content = Client(port, Totals()).ask("GET", "/metrics")
    line = next(
        line
        for line in content.decode().splitlines()
        if line.startswith("crystallm_process_resident_memory_bytes")
    )
    return round(float(line.split()[1]) / 2**20, 1)


def start(out: Path, model: str) -> tuple[subprocess.Popen[bytes], int]:
    """A server on the loopback, with room for all clients of this one address."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    limits = {
        "max-jobs-per-address": MOST_CLIENTS,
        "max-streams": 2 * MOST_CLIENTS,
        "max-streams-per-address": 2 * MOST_CLIENTS,
    }
    flags = [f"--{name}={value}" for name, value in limits.items()]
    command = [
        sys.executable,
        "-m",
        "crystallm",
        "serve",
        "--port",
        str(port),
        "--models",
        model,
        "--out",
        str(out),
    ]
    server = subprocess.Popen([*command, "--energy-models", "none", *flags])
    for _ in range(600):
        try:
            if Client(port, Totals()).ask("GET", "/healthz")[0] == 200:
                return server, port
        except OSError:
            time.sleep(0.1)
    server.kill()
    raise SystemExit("the server did not start")


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--n", type=int, default=4, help="crystals of a job of the many")
    parser.add_argument(
        "--seconds", type=float, default=180.0, help="of the many; one client takes a quarter"
    )
    parser.add_argument("--jobs", type=int, default=2000, help="in all, to see whether memory grows")
    parser.add_argument("--model", default="default")
    options = parser.parse_args()
    clients, seconds = min(options.clients, MOST_CLIENTS), min(options.seconds, MOST_SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        server, port = start(Path(folder), options.model)
        try:
            phase(port, 2, 1, 10.0, jobs=8)  # the judging process starts, caches fill
            one = phase(port, 1, 1, seconds / 4)
            many = phase(port, clients, options.n, seconds)
            done = one["jobs"] + many["jobs"]
            growth = {done: memory(port)}
            left = min(options.jobs, MOST_JOBS) - done
            while left > 0:
                part = phase(port, 8, 1, seconds, jobs=min(left, 250))
                if not part["jobs"]:
                    break
                left -= part["jobs"]
                done += part["jobs"]
                growth[done] = memory(port)
        finally:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
    ratio = many["crystals_per_second"] / max(one["crystals_per_second"], 1e-9)
    found = {
        "cores": os.cpu_count(),
        "one_client": one,
        f"{clients}_clients": many,
        "ratio": round(ratio, 2),
        "memory_mib_by_jobs": growth,
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
