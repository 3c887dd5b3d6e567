"""How much one may ask for, and how long it is kept."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """Bounds of a server. Frozen; refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    samples: int = Field(default=100, ge=1)
    """Crystals of one job."""
    atoms: int = Field(default=200, ge=1)
    """Atoms of a cell."""
    structures: int = Field(default=50, ge=1)
    """Crystals handed in with one job, to be judged or relaxed."""
    simulations: int = Field(default=1000, ge=1)
    """Of one search."""
    searches: int = Field(default=1, ge=1)
    """Searches that are done at the same time, each by a thread and processes of its own."""
    body: int = Field(default=1_000_000, ge=1000)
    """Bytes of a request's body."""
    body_seconds: float = Field(default=15.0, gt=0)
    """Time in which a body has to come."""
    job_seconds: float = Field(default=900.0, gt=0)
    """Time that a job may take once it has begun."""
    running: int = Field(default=16, ge=1)
    """Jobs that are done at the same time; their texts are written together."""
    waiting: int = Field(default=64, ge=0)
    """Jobs that wait behind these; who comes then is asked to come again."""
    per_address: int = Field(default=16, ge=1)
    """Jobs of one address, running or waiting: all that run, but a fifth of all places."""
    streams: int = Field(default=512, ge=1)
    """Clients that follow jobs at the same time."""
    streams_per_address: int = Field(default=128, ge=1)
    """Of these, clients of one address. More than its jobs: a stream costs little, and several may follow one
    job, or still hold a stream that a network has lost."""
    files: int = Field(default=16, ge=1)
    """Patterns, files and archives that are made at the same time; who comes then is asked to come again."""
    keep_hours: float = Field(default=168.0, gt=0)
    """Time for which a finished job's results are kept."""
    keep_jobs: int = Field(default=5000, ge=1)
    """Finished jobs that are kept, at most."""
