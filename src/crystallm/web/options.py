"""Options of a server, and its limits. Does not depend on how they are used."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from crystallm.execution.place import DeviceOptions
from crystallm.generation.request import SamplingOptions
from crystallm.options import CommonOptions, Options, same


class ServeOptions(Options):
    """What a server offers, where it listens, and who may use it."""

    host: str = "127.0.0.1"
    """Address to listen at; 127.0.0.1 is this machine alone."""
    port: int = Field(default=8000, ge=0, lt=2**16)
    """Port."""
    models: str = "default"
    """Models that are offered: names or paths, with commas; the first is the default."""
    energy_models: str | None = "installed"
    """Energy models that are offered, with commas; none for none."""
    out: Path = same(
        CommonOptions, "out", default=Path("out/serve"), description="Folder for jobs and results."
    )
    hosts: str | None = None
    """Host names under which it is reached besides localhost, with commas."""
    keys: Path | None = None
    """File of API keys, one a line; without it everybody who reaches the server may use it."""
    trusted_proxies: str | None = None
    """Reverse proxies that give clients' addresses: their own addresses or networks, with commas."""
    device: str = same(DeviceOptions, "device")
    batch_size: int = same(SamplingOptions, "batch_size")
    check_workers: int | None = Field(default=None, ge=1)
    """Processes that check crystals; none: half the cores, at most 8."""


class ServerLimits(Options):
    """Limits of a server."""

    max_samples: int = Field(default=100, ge=1)
    """Crystals of one job."""
    max_cell_atoms: int = Field(default=200, ge=1)
    """Atoms of a cell."""
    max_structures: int = Field(default=50, ge=1)
    """Structures uploaded with one job."""
    max_simulations: int = Field(default=1000, ge=1)
    """Simulations of one search."""
    max_searches: int = Field(default=1, ge=1)
    """Searches and solutions of patterns that run at the same time, each in a thread and processes of its
    own."""
    max_candidates: int = Field(default=150, ge=1)
    """Candidates of one pattern."""
    max_body_bytes: int = Field(default=1_000_000, ge=1000)
    """Size of a request's body."""
    body_timeout: float = Field(default=15.0, gt=0)
    """Seconds within which a body must arrive; likewise the head of the first request of a connection."""
    job_timeout: float = Field(default=900.0, gt=0)
    """Seconds that a job may run."""
    max_running: int = Field(default=16, ge=1)
    """Jobs that run at the same time; their token sequences share batches."""
    max_waiting: int = Field(default=64, ge=0)
    """Jobs in the queue; further ones are rejected with 429."""
    max_jobs_per_address: int = Field(default=16, ge=1)
    """Running or waiting jobs of one address. The default lets one address use every running slot, but only
    a fifth of all slots."""
    max_connections: int = Field(default=4096, ge=1)
    """Connections at the same time, as far as the limit of open files of the process allows them; further
    ones are closed at once."""
    max_streams: int = Field(default=512, ge=1)
    """Clients that follow jobs at the same time."""
    max_streams_per_address: int = Field(default=128, ge=1)
    """Streams of one address. More than its jobs: several clients may follow one job, and a broken connection
    may hold its stream for a while."""
    max_files: int = Field(default=16, ge=1)
    """Patterns, files and archives computed at the same time; further requests are rejected with 429."""
    keep_hours: float = Field(default=168.0, gt=0)
    """Hours for which the results of a finished job are kept."""
    keep_jobs: int = Field(default=5000, ge=1)
    """Finished jobs that are kept."""
