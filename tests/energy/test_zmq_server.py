"""Energies over ZeroMQ: a server in a thread, and clients of it."""

from __future__ import annotations

import importlib.util
import math
import threading
from contextlib import contextmanager
from queue import Queue

import pytest
from pymatgen.core import Lattice, Structure

import energies
from crystallm import energy
from crystallm.energy import zmq_server

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
def test_a_server_answers_with_the_energies_of_its_model():
    with server("energies:odd", seconds=2.0) as address:
        model = energy.load(address)
        assert model.name == address
        energy.check(model)
        copper = Structure(Lattice.cubic(3), ["Cu"], [[0, 0, 0]])
        (found,) = model.predict([copper], forces=True)
        assert found.energy == pytest.approx(energies.Morse().predict([copper])[0].energy)
        assert (found.forces, found.stress) == (None, None)
        for freak in ("He", "Xe", "Ne"):  # it raises, dies, hangs: and goes on
            (answer,) = model.predict([Structure(Lattice.cubic(3), [freak], [[0, 0, 0]])])
            assert math.isnan(answer.energy)
        assert model.predict([copper])[0].energy == found.energy
        model.close()
