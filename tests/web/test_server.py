"""What a server offers, and clients that come through proxies."""

from __future__ import annotations

from served import MORSE, SLOW
from web_requests import RUTILE


def test_about_lists_what_the_server_offers(served):
    about = served.get("/api/v1/about").json
    assert about["energies"] == [MORSE, SLOW]
    assert len(about["elements"]) == 118
    assert sum(one["known"] for one in about["elements"]) == 89
    assert len(about["space_groups"]) == 230
    assert about["limits"]["samples"] == 64
    assert served.get("/healthz").json == {"status": "ok"}


def test_an_untrusted_proxy_is_logged_once(served):
    forwarded = {"X-Forwarded-For": "192.0.2.7"}
    for _ in range(2):
        assert served.post({**RUTILE, "n": 1}, **forwarded).status == 202
    lines = [line for line in served.log().splitlines() if "the proxy at 127.0.0.1 is not trusted" in line]
    assert len(lines) == 1
    assert "--trusted-proxies" in lines[0]
