"""Places of which there are so many, for all and for each address. Refuses to know what they are for."""

from __future__ import annotations

import ipaddress
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class FullError(Exception):
    """There is no place."""


class Places:
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
            raise FullError
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
