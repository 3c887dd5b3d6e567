"""Where work runs: options for devices, worker processes and clusters."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from crystallm.options import NOT_DECIDING, Options


class DeviceOptions(Options):
    """The device of a network or energy model, for commands without `SamplingOptions`."""

    device: Annotated[str, NOT_DECIDING] = "auto"
    """cpu, cuda, cuda:1 or mps; auto takes a GPU if there is one."""


class WorkerOptions(Options):
    """Worker processes of this machine."""

    workers: Annotated[int | None, NOT_DECIDING] = Field(default=None, ge=1)
    """Number of worker processes; none: as many as suit the machine."""


class ExecutionOptions(WorkerOptions):
    """Worker processes of this machine, or a Dask cluster."""

    cluster: Annotated[str | None, NOT_DECIDING] = None
    """Run on a Dask cluster: address of its scheduler, or a YAML file; see crystallm cluster."""
