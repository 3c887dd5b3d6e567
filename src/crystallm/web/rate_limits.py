"""ServerLimits of a server, and slots that are counted for each address. Does not depend on HTTP."""

from __future__ import annotations

import ipaddress
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Iterator


class NoSlotError(Exception):
    """All slots are taken."""


class Slots:
    """Slots that are taken for a while; used from one thread.

    Args:
        max_n: slots in all.
        max_per_address: slots of one address; None for no limit of its own.
    """

    def __init__(self, max_n: int, max_per_address: int | None = None) -> None:
        self._max_n = max_n
        self._max_per_address = max_n if max_per_address is None else max_per_address
        self._taken: Counter[str] = Counter()

    @property
    def n_taken(self) -> int:
        """Number of slots that are taken."""
        return self._taken.total()

    def take(self, address: str = "") -> None:
        """Take a slot until `release`.

        Raises:
            NoSlotError: all slots are taken, or all of this address.
        """
        if self.n_taken >= self._max_n or self._taken[address] >= self._max_per_address:
            raise NoSlotError
        self._taken[address] += 1

    def release(self, address: str = "") -> None:
        """Release a slot."""
        self._taken[address] -= 1
        if not self._taken[address]:
            del self._taken[address]

    @contextmanager
    def hold(self, address: str = "") -> Iterator[None]:
        """Hold a slot within a `with` block.

        Raises:
            NoSlotError: as for `take`.
        """
        self.take(address)
        try:
            yield
        finally:
            self.release(address)


def client_network(host: str) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), 64), strict=False))


class ServerLimits(BaseModel):
    """ServerLimits of a server. Frozen; rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_samples: int = Field(default=100, ge=1)
    """Crystals of one job."""
    max_atoms: int = Field(default=200, ge=1)
    """Atoms of a cell."""
    max_structures: int = Field(default=50, ge=1)
    """Structures uploaded with one job."""
    max_simulations: int = Field(default=1000, ge=1)
    """Simulations of one search."""
    max_searches: int = Field(default=1, ge=1)
    """Searches that run at the same time, each in a thread and processes of its own."""
    max_body_bytes: int = Field(default=1_000_000, ge=1000)
    """Size of a request's body."""
    body_timeout: float = Field(default=15.0, gt=0)
    """Seconds within which a body must arrive."""
    job_timeout: float = Field(default=900.0, gt=0)
    """Seconds that a job may run."""
    max_running: int = Field(default=16, ge=1)
    """Jobs that run at the same time; their token sequences share batches."""
    max_waiting: int = Field(default=64, ge=0)
    """Jobs in the queue; further ones are rejected with 429."""
    max_jobs_per_address: int = Field(default=16, ge=1)
    """Running or waiting jobs of one address. The default lets one address use every running slot, but only
    a fifth of all slots."""
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
