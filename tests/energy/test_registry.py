from __future__ import annotations

import importlib.util
import socket

import pytest

import energies
from crystallm import energy
from crystallm.energy import registry as models
from crystallm.errors import CrystallmError, InputError


def needs(package):
    there = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(not there, reason=f"{package} is not installed")


needs_ase, needs_chgnet, needs_sevenn = needs("ase"), needs("chgnet"), needs("sevenn")


@needs_sevenn
@needs_ase
@pytest.mark.filterwarnings("ignore")  # its packages announce much
def test_sevennet_conforms():
    energy.check(energy.load("sevennet", device="cpu"))


def test_a_factory_makes_a_model_and_the_device_is_told_to_those_that_ask(monkeypatch):
    assert energy.load("energies:morse").name == "morse"
    told = []

    def picky(device):
        told.append(device)
        return energies.Morse()

    monkeypatch.setattr(energies, "picky", picky, raising=False)
    energy.load("energies:picky", device="cuda:1")
    assert told == ["cuda:1"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dft", "no energy model 'dft': there are chgnet, sevennet, and module:factory"),
        ("no_such_module:f", "no module 'no_such_module'"),
        ("no_such_module.a:f", "no module 'no_such_module.a'"),
        ("energies:nothing", "has no attribute 'nothing'"),
        ("time:time", "gave float: neither an ASE calculator nor an energy model"),
        (":", "no energy model"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(name, said):
    with pytest.raises(InputError, match=said) as caught:
        energy.load(name)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there_is_named_before_anything_is_sampled(monkeypatch):
    monkeypatch.setattr(models, "find_spec", lambda _: True)  # as if pyzmq were installed
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        models.require(address)
    with pytest.raises(CrystallmError, match=f"no energy model at '{address}' .*is the server running"):
        models.require(address)
    for wrong in ("tcp://nowhere", "tcp://127.0.0.1:99999", "tcp://:1"):
        with pytest.raises(InputError, match=f"no address '{wrong}'"):
            models.require(wrong)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(models, "find_spec", lambda _: None)
    with pytest.raises(CrystallmError, match=r"needs chgnet and ase: pip install 'crystallm\[energy\]'"):
        energy.load("chgnet")
