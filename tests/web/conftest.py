"""Servers and finished jobs that several tests read."""

from __future__ import annotations

import pytest

from served import MORSE, Served
from web_requests import RUTILE


@pytest.fixture(scope="module")
def rutile(served):
    """A finished job."""
    return served.done(RUTILE)


@pytest.fixture(scope="module")
def relaxed(served):
    """A finished job whose crystals were relaxed."""
    return served.done({**RUTILE, "n": 2, "energy": MORSE, "relax": True})


@pytest.fixture(scope="module")
def closed(parrot, tmp_path_factory):
    """A server with keys, a name, and one slot of each kind for an address."""
    folder = tmp_path_factory.mktemp("closed")
    (folder / "keys").write_text("# of a laboratory\nsesame-sesame-sesame\n")
    limits = ("--max-jobs-per-address=1", "--max-streams-per-address=1", "--max-files=1")
    options = ("--keys", str(folder / "keys"), *limits, "--hosts", "crystals.example")
    server = Served(parrot, folder / "out", *options)
    yield server
    server.end()
