"""`crystallm energy-server`: the energies of a model for other programs, over ZeroMQ."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from crystallm.cli.option_groups import Device, Quiet


def energy_server(
    *,
    model: Annotated[
        str, Parameter(help="chgnet, sevennet, or module:factory for any ASE calculator.")
    ] = "chgnet",
    address: Annotated[
        str, Parameter(help="Where to listen; tcp://*:5555 for other machines, too.")
    ] = "tcp://127.0.0.1:5555",
    seconds: Annotated[float, Parameter(help="Limit for one crystal.")] = 60.0,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Answer CIFs with energies (eV per atom, nan for none) over ZeroMQ, until it is stopped.

    crystallm energy-server --model chgnet

    `--energy tcp://127.0.0.1:5555` of generate asks it. Needs pip install 'crystallm[zmq]'.
    """
    from crystallm.energy import zmq_server
    from crystallm.execution.devices import resolve_device

    def ready(at: str) -> None:
        if not quiet:
            sys.stderr.write(f"{model} answers at {at}\n")

    zmq_server.serve(
        model, address, device=str(resolve_device(device or "auto")), seconds=seconds, ready=ready
    )
