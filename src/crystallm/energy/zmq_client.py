"""An energy model behind ZeroMQ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystallm.energy.protocol import Prediction
from crystallm.errors import CrystallmError, InputError, install
from crystallm.sources import parsing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure

ADDRESS = "tcp://127.0.0.1:5555"
"""Default address of a server: for programs of this machine alone."""
SECONDS = 120.0
"""Time limit for one answer, longer than the limit of a server, s."""

POLL = 100
"""Interval in which a server checks whether to stop, ms."""


class ZmqModel:
    """A server of energies as an energy model, without forces.

    Args:
        address: of the server, `tcp://host:port`.
        seconds: limit for one answer.
        tries: how often a crystal is sent; the server may have been restarted.

    Raises:
        CrystallmError: pyzmq is not installed.
    """

    def __init__(self, address: str = ADDRESS, *, seconds: float = SECONDS, tries: int = 2) -> None:
        self.name = address
        self._zmq = import_zmq()
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
        return [Prediction(self._ask(parsing.to_cif(structure, digits=10))) for structure in structures]

    def close(self) -> None:
        """Close the connection."""
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


def import_zmq() -> Any:
    """Import pyzmq, or raise CrystallmError with the way to install it."""
    try:
        import zmq
    except ImportError:
        raise CrystallmError(f"energies over ZeroMQ need pyzmq: {install('zmq')}") from None
    return zmq
