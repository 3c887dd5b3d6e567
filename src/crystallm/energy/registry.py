"""Energy models by name.

    chgnet            CHGNet 0.3.0, with the weights of its package
    sevennet          SevenNet-0, likewise
    module:factory    a function that returns an ASE calculator or an energy model
    tcp://host:port   an energy server, see `zmq_server`

Does not depend on how energies are used, or how models fail; see `calculations`.
"""

from __future__ import annotations

import inspect
import socket
from importlib.util import find_spec
from typing import Any

from crystallm.energy.protocol import EnergyModel
from crystallm.errors import CrystallmError, InputError, install, quiet_libraries
from crystallm.options import import_object

DEFAULT = "chgnet"
_BUILT_IN = {
    "chgnet": ("crystallm.energy.chgnet:ChgnetModel", ("chgnet", "ase"), install("energy")),
    "sevennet": ("crystallm.energy.ase_adapter:sevennet", ("sevenn", "ase"), "pip install sevenn"),
}
"""For each name: factory, required packages, and the command that installs them."""

_REMOTE = "tcp://"
CONNECT_SECONDS = 5.0
"""Limit for finding out whether a server of energies is there."""


def require(name: str) -> None:
    """Check whether there is such a model, without importing heavy packages.

    Raises:
        InputError: there is none of that name, or its module is not found.
        CrystallmError: it needs a package that is not installed, or nobody listens at its address.
    """
    if name in _BUILT_IN:
        _, packages, mend = _BUILT_IN[name]
        missing = [package for package in packages if find_spec(package) is None]
        if missing:
            raise CrystallmError(f"the energy model {name!r} needs {' and '.join(missing)}: {mend}")
        return
    if name.startswith(_REMOTE):
        if find_spec("zmq") is None:
            raise CrystallmError(f"the energy model {name!r} needs pyzmq: {install('zmq')}")
        _require_listener(name)
        return
    module, colon, factory = name.partition(":")
    if not colon or not all(part.isidentifier() for part in [*module.split("."), *factory.split(".")]):
        raise InputError(
            f"no energy model {name!r}: there are {', '.join(_BUILT_IN)}, and module:factory for any ASE "
            "calculator"
        )
    try:
        found = find_spec(module)
    except ImportError:  # of a package above it
        found = None
    if found is None:
        raise InputError(f"energy model {name!r}: no module {module!r}; is its folder on PYTHONPATH?")


def _require_listener(address: str) -> None:
    """Check whether a program listens at tcp://host:port, which takes no longer than CONNECT_SECONDS."""
    host, _, port = address.removeprefix(_REMOTE).rpartition(":")
    if not (host and port.isdecimal() and int(port) < 2**16):
        raise InputError(f"no address {address!r}: write tcp://host:port")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise CrystallmError(
            f"no energy model at {address!r} ({error.strerror or error}): is the server running? "
            "crystallm energy-server starts one"
        ) from None


def load(name: str = DEFAULT, *, device: str = "auto") -> EnergyModel:
    """Load the energy model of this name.

    Args:
        name: see the module. A factory is called without arguments, or with `device` where it takes one.
        device: 'cpu', 'cuda', 'cuda:1' or 'auto', which takes a GPU where there is one.

    Raises:
        InputError, CrystallmError: as `require`; the factory returns something else, or there is no such
            device.
    """
    require(name)
    if name.startswith(_REMOTE):
        from crystallm.energy.zmq_client import ZmqModel

        return ZmqModel(name)
    path = _BUILT_IN[name][0] if name in _BUILT_IN else name
    with quiet_libraries():  # of what these packages import
        factory = import_object(path, "energy")
        made = factory(device=device) if _takes_device(factory) else factory()
    if hasattr(made, "predict"):
        model: EnergyModel = made
        return model
    if hasattr(made, "get_potential_energy"):
        if find_spec("ase") is None:
            raise CrystallmError(f"energy model {name!r} needs ase: {install('energy')}")
        from crystallm.energy.ase_adapter import AseModel

        return AseModel(made, name)
    raise InputError(
        f"energy model {name!r} gave {type(made).__name__}: neither an ASE calculator nor an energy model"
    )


def _takes_device(factory: Any) -> bool:
    try:
        return "device" in inspect.signature(factory).parameters
    except (TypeError, ValueError):  # built-in ones tell nothing
        return False
