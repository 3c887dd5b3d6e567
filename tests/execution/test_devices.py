"""Devices, dtypes and threads by name."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
import torch

from crystallm.errors import InputError
from crystallm.execution import devices


def test_a_device_by_name(monkeypatch):
    assert devices.resolve_device("cpu") == devices.resolve_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.resolve_device("auto") == torch.device("cpu")
    assert devices.energy_device("auto") == "cpu"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("abacus", "no such device: 'abacus'"),
        ("cuda:99", "'cuda:99' cannot be used"),
        ("meta", "cannot compute"),
    ],
)
def test_a_device_that_does_not_exist_is_rejected(name, reason):
    with pytest.raises(InputError, match=reason):
        devices.resolve_device(name)


def test_a_dtype_by_name():
    assert devices.resolve_dtype("auto") == devices.resolve_dtype(torch.float32) == torch.float32
    assert devices.resolve_dtype("bfloat16") == torch.bfloat16
    with pytest.raises(InputError, match="no such dtype: 'half'"):
        devices.resolve_dtype("half")


def test_names_of_devices(monkeypatch):
    assert devices.device_names("cuda:0, cuda:1") == ("cuda:0", "cuda:1")
    for wrong in ("cpu,cpu", "cpu,"):
        with pytest.raises(InputError, match="write each once"):
            devices.device_names(wrong)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="there is no GPU here"):
        devices.device_names("all")


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
