"""Serve energies over ZeroMQ, as the original CrystaLLM requests them: a CIF in, a number out.

    request   a CIF, UTF-8
    reply     energy in eV per atom as decimal text; `nan` where the model has none

One request at a time on a REQ socket, answered by a REP socket. The model may so live in another environment,
or on another machine. What is sent is neither encrypted nor signed: keep to machines that you trust.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable

from crystallm.energy import calculations
from crystallm.energy import registry as models
from crystallm.energy.zmq_client import ADDRESS, POLL, import_zmq
from crystallm.errors import CrystallmError, InputError
from crystallm.execution.pool import ProcessPool
from crystallm.execution.tasks import Failure

_LOG = logging.getLogger(__name__)


def serve(
    model: str = models.DEFAULT,
    address: str = ADDRESS,
    *,
    device: str = "cpu",
    seconds: float = calculations.SECONDS,
    stop: threading.Event | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Answer requests until stopped; if the model fails, one crystal has no energy.

    Args:
        address: to listen at; `tcp://127.0.0.1:*` takes any free port.
        stop: ends it when set; None: only an exception, Ctrl-C for one, does.
        ready: called with the address once it listens.

    Raises:
        InputError, CrystallmError: there is no such model or it cannot be loaded; the address is taken, or
            none; pyzmq is not installed.
    """
    models.require(model)
    zmq = import_zmq()
    stop = threading.Event() if stop is None else stop
    with zmq.Context() as context, context.socket(zmq.REP) as socket, ProcessPool(1) as pool:
        socket.setsockopt(zmq.LINGER, 0)
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            raise InputError(f"cannot listen at {address!r} ({error}): write tcp://host:port") from None
        if ready is not None:
            ready(socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0"))
        while not stop.is_set():
            if not socket.poll(POLL):
                continue
            text = socket.recv().decode("utf-8", "replace")
            try:
                energy = _energy(text, model, device, seconds, pool)
            except BaseException:  # no model can be loaded: whoever asked is told before the end
                socket.send_string("nan")
                raise
            socket.send_string(repr(energy))


def _energy(text: str, model: str, device: str, seconds: float, pool: ProcessPool) -> float:
    """Return the energy of the crystal of a CIF; NaN if it has none, which is logged."""
    from crystallm.sources import parsing

    try:
        structure = parsing.structure(text)
    except CrystallmError as error:
        _LOG.warning("a request is no crystal: %s", error)
        return math.nan
    (found,) = calculations.score([structure], model, device=device, seconds=seconds, executor=pool)
    if isinstance(found, Failure):
        _LOG.warning("%s has no energy: %s", structure.formula, found.reason)
        return math.nan
    return found
