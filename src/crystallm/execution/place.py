"""Where work runs: options for devices, worker processes and clusters, and the executor they name."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Annotated

from pydantic import Field

from crystallm.execution.pool import ProcessPool
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


def open_cluster(cluster: str | None) -> AbstractContextManager[Executor | None]:
    """Connect to the cluster of the options, if any; see `cluster.connect`."""
    if cluster is None:
        return nullcontext()
    from crystallm.execution.cluster import connect

    return connect(cluster)


@contextmanager
def open_place(cluster: str | None, workers: int) -> Iterator[Executor]:
    """Connect to the cluster of the options, or open a process pool of this machine."""
    with open_cluster(cluster) as executor:
        if executor is not None:
            yield executor
            return
    with ProcessPool(workers) as pool:
        yield pool
