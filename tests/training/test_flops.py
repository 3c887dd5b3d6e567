"""Threads: as many as were asked for, or as a container's share allows, and none that spin."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
import torch

from crystallm.errors import InputError
from crystallm.execution import devices


@pytest.fixture(autouse=True)
def _as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("text", "quota"),
    [("max 100000\n", math.inf), ("150000 100000\n", 1.5), ("", math.inf), ("much of it\n", math.inf)],
)
def test_a_share_of_processors_is_read(text, quota, tmp_path):
    path = tmp_path / "cpu.max"
    path.write_text(text)
    assert devices._cpu_quota(path) == quota
    assert devices._cpu_quota(tmp_path / "missing") == math.inf


@pytest.mark.parametrize(("quota", "threads"), [(math.inf, 3), (8.0, 3), (2.5, 2), (0.2, 1)])
def test_no_more_threads_than_a_container_may_use(quota, threads, monkeypatch):
    torch.set_num_threads(3)
    monkeypatch.setattr(devices, "_cpu_quota", lambda: quota)
    assert devices.use_threads(None) == torch.get_num_threads() == threads


def test_threads_that_were_asked_for_are_used():
    assert devices.use_threads(2) == torch.get_num_threads() == 2
    with pytest.raises(InputError, match="threads = 0: write a whole number from 1"):
        devices.use_threads(0)


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_somebody_wants_them_to_spin(before, after):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    code = "import os, sys, crystallm; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | ({} if before is None else {"OMP_WAIT_POLICY": before}),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.stdout.split() == [after, "False"]
