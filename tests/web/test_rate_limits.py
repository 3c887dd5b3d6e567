"""ServerLimits, slots of addresses."""

from __future__ import annotations

import pytest

from crystallm.web.rate_limits import NoSlotError, Slots, client_network


def test_slots_are_counted_in_all_and_for_each_address():
    slots = Slots(3, 2)
    slots.take("a")
    with slots.hold("a"), pytest.raises(NoSlotError):
        slots.take("a")
    slots.take("b")
    slots.take("a")
    with pytest.raises(NoSlotError):
        slots.take("c")
    slots.release("b")
    slots.take("c")
    assert slots.n_taken == 3


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:0:1:a::1", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:1::/64"),
        ("2001:db8:0:2::1", "2001:db8:0:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_an_ipv6_address_counts_by_its_network(host, counted):
    assert client_network(host) == counted
