"""Devices, dtypes and threads by name."""

from __future__ import annotations

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
    ("name", "reason"), [("abacus", "no such device: 'abacus'"), ("cuda:99", "'cuda:99' cannot be used")]
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
