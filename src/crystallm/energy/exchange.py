"""Energies over ZeroMQ, as the original asks for them: a CIF goes out, a number comes back.

    request   a CIF, UTF-8
    reply     energy in eV per atom as decimal text; `nan` where the model has none

One request at a time on a REQ socket, answered by a REP socket. The model may so live in another environment,
or on another machine. What is sent is neither encrypted nor signed: keep to machines that you trust.
"""

from __future__ import annotations

import logging
import math
import threading
import warnings
from typing import TYPE_CHECKING, Any

from crystallm.energy import model as models
from crystallm.energy import scoring
from crystallm.energy.model import Prediction
from crystallm.errors import CrystallmError, InputError, install
from crystallm.execution import mapping, tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pymatgen.core import Structure

ADDRESS = "tcp://127.0.0.1:5555"
"""Where a server listens unless told otherwise: for programs of this machine alone."""
SECONDS = 120.0
"""How long a client waits for one answer: longer than a server takes for its time limit."""
_POLL = 100
"""Milliseconds between two looks whether a server is to stop."""
_LOG = logging.getLogger(__name__)


class ZmqModel:
    """A server of energies as an energy model, without forces.

    Args:
        address: of the server, `tcp://host:port`.
        seconds: limit for one answer.
        tries: how often a crystal is sent; a server may have been started anew.

    Raises:
        CrystallmError: pyzmq is not installed.
        InputError: the address is none.
    """

    def __init__(self, address: str = ADDRESS, *, seconds: float = SECONDS, tries: int = 2) -> None:
        self.name = address
        self._zmq = _zmq()
        self._context = self._zmq.Context.instance()
        self._seconds = seconds
        self._tries = tries
        self._socket: Any = None
        self._connect()

    def predict(self, structures: Sequence[Structure], *, forces: bool = False) -> list[Prediction]:  # noqa: ARG002 - it has none
        """What the server says; see `EnergyModel`.

        Raises:
            CrystallmError: it does not answer, or not with a number.
        """
        return [Prediction(self._ask(_cif(structure))) for structure in structures]

    def close(self) -> None:
        """Let go of the server."""
        self._socket.close(linger=0)

    def _connect(self) -> None:
        self._socket = self._context.socket(self._zmq.REQ)
        try:
            self._socket.connect(self.name)
        except self._zmq.ZMQError as error:
            self.close()
            raise InputError(f"no address {self.name!r} ({error}): write tcp://host:port") from None

    def _ask(self, text: str) -> float:
        for _ in range(self._tries):
            self._socket.send_string(text)
            if self._socket.poll(int(1000 * self._seconds)):
                said = self._socket.recv()
                try:
                    return float(said)
                except ValueError:
                    raise CrystallmError(f"{self.name} answers {said[:40]!r}, which is no number") from None
            # A REQ socket waits for its answer for ever: only another one can ask again.
            self.close()
            self._connect()
        raise CrystallmError(
            f"{self.name} does not answer ({self._tries} times {self._seconds:g} s): is the server running?"
        )


def serve(
    model: str = models.DEFAULT,
    address: str = ADDRESS,
    *,
    device: str = "cpu",
    seconds: float = scoring.SECONDS,
    stop: threading.Event | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Answer requests until stopped; a model that fails costs one crystal its number.

    Args:
        model: by name, see `model.load`; it runs in a process that may be lost.
        address: to listen at; `tcp://127.0.0.1:*` takes any free port.
        device: where the process runs it.
        seconds: limit for one crystal.
        stop: ends it when set; None: only an exception, Ctrl-C for one, does.
        ready: called with the address once it listens.

    Raises:
        InputError, CrystallmError: there is no such model or it cannot be loaded; the address is taken, or
            none; pyzmq is not installed.
    """
    models.require(model)
    zmq = _zmq()
    stop = threading.Event() if stop is None else stop
    with zmq.Context() as context, context.socket(zmq.REP) as socket, mapping.kept(end=True):
        socket.setsockopt(zmq.LINGER, 0)
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            raise InputError(f"cannot listen at {address!r} ({error}): write tcp://host:port") from None
        if ready is not None:
            ready(socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0"))
        while not stop.is_set():
            if not socket.poll(_POLL):
                continue
            text = socket.recv().decode("utf-8", "replace")
            try:
                energy = _energy(text, model, device, seconds)
            except BaseException:  # no model can be loaded: whoever asked is told before the end
                socket.send_string("nan")
                raise
            socket.send_string(repr(energy))


def _energy(text: str, model: str, device: str, seconds: float) -> float:
    """Of the crystal of a CIF; NaN where there is none, which is logged."""
    from crystallm.sources import parsing

    try:
        structure = parsing.structure(text)
    except CrystallmError as error:
        _LOG.warning("a request is no crystal: %s", error)
        return math.nan
    (found,) = scoring.score([structure], model, device=device, seconds=seconds)
    if isinstance(found, tasks.Lost):
        _LOG.warning("%s has no energy: %s", structure.formula, found.reason)
        return math.nan
    return found


def _cif(structure: Structure) -> str:
    from pymatgen.io.cif import CifWriter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return str(CifWriter(structure, significant_figures=10))


def _zmq() -> Any:
    try:
        import zmq
    except ImportError:
        raise CrystallmError(f"energies over ZeroMQ need pyzmq: {install('zmq')}") from None
    return zmq
