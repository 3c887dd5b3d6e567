"""Where work runs: options for devices, worker processes and clusters."""

from __future__ import annotations

from pydantic import Field

from crystallm.options import Options


class DeviceOptions(Options):
    """The device of a network or energy model, for commands without `SamplingOptions`."""

    device: str = "auto"
    """cpu, cuda, cuda:1 or mps; auto takes a GPU if there is one."""


class WorkerOptions(Options):
    """Worker processes of this machine."""

    workers: int | None = Field(default=None, ge=1)
    """Number of worker processes; none: as many as suit the machine."""


class ExecutionOptions(WorkerOptions):
    """Worker processes of this machine, or a Dask cluster."""

    cluster: str | None = None
    """Run on a Dask cluster: address of its scheduler, or a YAML file; see crystallm cluster."""
