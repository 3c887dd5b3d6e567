"""Jobs of SLURM, PBS or LSF for a Dask cluster."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from crystallm.errors import CrystallmError, InputError, install, one_line
from crystallm.options import Options, read_mapping

EXAMPLE = "system: slurm"
MISSING = f"a cluster needs Dask: {install('cluster')}"
_SINGLE = tuple(f"export {name}=1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"))


class JobQueueOptions(Options):
    """Jobs of a queueing system. All other keys are arguments of dask-jobqueue's class for it."""

    model_config = ConfigDict(extra="allow")

    system: Literal["slurm", "pbs", "lsf"]
    """The queueing system."""
    jobs: int | None = Field(default=None, ge=1)
    """Number of jobs; 1 if neither this nor `maximum` is given."""
    minimum: int = Field(default=0, ge=0)
    """With `maximum`: number of jobs that are kept when there is little to do."""
    maximum: int | None = Field(default=None, ge=1)
    """Maximum number of jobs, in place of `jobs`: as many as the work needs."""

    @model_validator(mode="after")
    def _fits_together(self) -> JobQueueOptions:
        if self.jobs is not None and (self.maximum is not None or self.minimum):
            raise ValueError(f"jobs = {self.jobs} beside minimum or maximum: give one or the other")
        if self.minimum > (self.minimum if self.maximum is None else self.maximum):
            raise ValueError(f"minimum = {self.minimum} is above maximum = {self.maximum}")
        if self.minimum and self.maximum is None:
            raise ValueError(f"minimum = {self.minimum} without maximum: give both")
        # YAML reads 12:00:00 as a number to the base of 60, and 04:00:00 as a string.
        if isinstance(value := (self.model_extra or {}).get("walltime"), int):
            text = f"{value // 3600:02d}:{value // 60 % 60:02d}:{value % 60:02d}"
            message = f'YAML takes walltime = {value} for a number: write "{text}", in quotes'
            raise ValueError(message)  # noqa: TRY004 - for pydantic
        return self

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of dask-jobqueue's class: a worker per core, each with one thread."""
        given = dict(self.model_extra or {})
        prologue = [*_SINGLE, *given.pop("job_script_prologue", ())]
        own = {"job_name": "crystallm", "processes": given.get("cores"), "job_script_prologue": prologue}
        return own | given


def read_queue(path: Path) -> JobQueueOptions:
    """Read the YAML file of a queue. Raises InputError: it is not a mapping, or a value is out of range."""
    values = read_mapping(path, EXAMPLE)
    if values is None:
        raise InputError(f"{path} must hold names and values, such as {EXAMPLE!r}")
    try:
        return JobQueueOptions.build(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def job_script(spec: str) -> str:
    """Return the script of one job of a YAML file. Nothing is submitted.

    Raises:
        InputError, CrystallmError: as `read_queue`; dask-jobqueue is not installed, or rejects an argument.
    """
    queue = read_queue(Path(spec))
    kind = _cluster_class(queue)
    import inspect

    from dask_jobqueue.core import JobQueueCluster

    # A cluster would start its scheduler. A job alone starts nothing, but takes fewer arguments.
    parameters = set(inspect.signature(JobQueueCluster.__init__).parameters)
    scheduler_only = parameters - {"interface", "protocol", "security", "config_name"}
    arguments = {name: value for name, value in queue.arguments().items() if name not in scheduler_only}
    with _rejections(spec):
        job = kind.job_cls("tcp://SCHEDULER:8786", name="crystallm", **arguments)
        return str(job.job_script())


def _cluster_class(queue: JobQueueOptions) -> Any:
    """Return dask-jobqueue's class for a queueing system."""
    try:
        import dask_jobqueue
    except ImportError:
        raise CrystallmError(MISSING) from None
    return getattr(dask_jobqueue, f"{queue.system.upper()}Cluster")


@contextmanager
def _rejections(spec: str) -> Iterator[None]:
    """Turn dask-jobqueue's errors about its arguments into one line."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise InputError(f"{spec}: dask-jobqueue rejects it: {one_line(error)}") from None


@contextmanager
def start_jobs(queue: JobQueueOptions, spec: str) -> Iterator[Any]:
    """Start a scheduler in this process and jobs of the queue for it, which end with the context."""
    kind = _cluster_class(queue)
    command = kind.job_cls.submit_command
    if shutil.which(command) is None:
        raise CrystallmError(
            f"{spec}: there is no {command!r} here: start this where jobs of {queue.system} are submitted"
        )
    # Two runs on one login node would fight for the port of Dask's web page.
    options = {"dashboard_address": ":0", **(queue.model_extra or {}).get("scheduler_options", {})}
    import dask

    # The death of a worker counts against all tasks that it holds: so it holds one at a time.
    with _rejections(spec), dask.config.set({"distributed.scheduler.worker-saturation": 1.0}):
        cluster = kind(**queue.arguments() | {"scheduler_options": options})
    with closing(cluster):
        if queue.maximum is not None:
            cluster.adapt(minimum_jobs=queue.minimum, maximum_jobs=queue.maximum)
        else:
            cluster.scale(jobs=queue.jobs or 1)
        yield cluster
