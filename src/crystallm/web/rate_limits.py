"""ServerLimits of a server, and slots that are counted for each address. Does not depend on HTTP."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class NoSlotError(Exception):
    """All slots are taken."""


class Slots:
    """Slots that are taken for a while, limited in all and for each address; used from one thread."""

    def __init__(self, max_n: int, max_per_address: int | None = None) -> None:
        self._max_n = max_n
        self._max_per_address = max_n if max_per_address is None else max_per_address
        self._taken: Counter[str] = Counter()

    @property
    def n_taken(self) -> int:
        """Number of slots that are taken."""
        return self._taken.total()

    def take(self, address: str = "") -> None:
        """Take a slot until `release`; raises NoSlotError if all are taken, or all of this address."""
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
        """Hold a slot within a `with` block; raises as `take`."""
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
