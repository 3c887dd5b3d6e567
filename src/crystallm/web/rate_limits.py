"""Places of which there are so many, for all and for each address. Refuses to know what they are for."""

from __future__ import annotations

import ipaddress
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Iterator


class NoSlotError(Exception):
    """There is no place."""


class Slots:
    """Places that are taken for a while; used from one thread.

    Args:
        most: of all.
        most_each: of one address; None for as many as there are.
    """

    def __init__(self, most: int, most_each: int | None = None) -> None:
        self._most = most
        self._most_each = most if most_each is None else most_each
        self._taken: Counter[str] = Counter()

    @property
    def n_taken(self) -> int:
        """How many are taken."""
        return self._taken.total()

    def take(self, address: str = "") -> None:
        """Take one, for `leave` to give back.

        Raises:
            FullError: there is none, or none for this address.
        """
        if self.n_taken >= self._most or self._taken[address] >= self._most_each:
            raise NoSlotError
        self._taken[address] += 1

    def leave(self, address: str = "") -> None:
        """Give one back."""
        self._taken[address] -= 1
        if not self._taken[address]:
            del self._taken[address]

    @contextmanager
    def one(self, address: str = "") -> Iterator[None]:
        """Hold one.

        Raises:
            FullError: there is none.
        """
        self.take(address)
        try:
            yield
        finally:
            self.leave(address)


def origin(host: str) -> str:
    """What counts as one address: an IPv4 address, of IPv6 the 64 bits that one line is given."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), 64), strict=False))


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
