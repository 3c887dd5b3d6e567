"""Energy models of another process, over ZeroMQ."""

from __future__ import annotations

import importlib.util
import threading
from contextlib import contextmanager
from queue import Queue

import pytest
from pymatgen.core import Lattice, Structure

from crystallm import energy
from crystallm.cli import app
from crystallm.energy import zmq_client, zmq_server
from crystallm.errors import CrystallmError, InputError

needs_zmq = pytest.mark.skipif(importlib.util.find_spec("zmq") is None, reason="pyzmq is not installed")


@contextmanager
def server(model: str, **options):
    stop, address = threading.Event(), Queue()
    arguments = {"stop": stop, "ready": address.put, **options}
    thread = threading.Thread(target=zmq_server.serve, args=(model, "tcp://127.0.0.1:*"), kwargs=arguments)
    thread.start()
    try:
        yield address.get(timeout=20)
    finally:
        stop.set()
        thread.join(30)


@needs_zmq
def test_a_server_that_is_not_there_costs_a_limit_and_is_named():
    model = zmq_client.ZmqModel("tcp://127.0.0.1:9", seconds=0.1, tries=2)
    with pytest.raises(CrystallmError, match=r"tcp://127.0.0.1:9 does not answer \(2 times 0.1 s\)"):
        model.predict([Structure(Lattice.cubic(3), ["Cu"], [[0, 0, 0]])])
    model.close()
    with pytest.raises(InputError, match="no address 'tcp://nowhere'"):
        energy.load("tcp://nowhere")
    with pytest.raises(InputError, match="cannot listen at 'tcp://nowhere'"):
        zmq_server.serve("energies:odd", "tcp://nowhere")


def test_a_missing_package_is_told_in_one_line(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "zmq", None)
    assert app.run(["energy-server", "--energy", "energies:odd", "--device", "cpu"]) == 1
    assert "pip install 'crystallm[zmq]'" in capsys.readouterr().err
