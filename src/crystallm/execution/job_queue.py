"""Jobs of SLURM, PBS or LSF for a Dask cluster."""

from __future__ import annotations

import shutil
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from crystallm.errors import CrystallmError, InputError, install, one_line
from crystallm.options import hint, read_mapping, validated

if TYPE_CHECKING:
    from collections.abc import Iterator


EXAMPLE = "system: slurm"

MISSING = f"a cluster needs Dask: {install('cluster')}"

_SINGLE = tuple(f"export {name}=1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"))


class JobQueueOptions(BaseModel):
    """What to ask a queueing system for. Frozen; refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    system: Literal["slurm", "pbs", "lsf"]
    """The queueing system."""
    jobs: int | None = Field(default=None, ge=1)
    """Jobs to ask for; one if neither this nor `maximum` is given."""
    minimum: int = Field(default=0, ge=0)
    """With `maximum`: jobs that are kept, however little there is to do."""
    maximum: int | None = Field(default=None, ge=1)
    """Jobs to ask for at most, as many as the work needs at a time; in place of `jobs`."""
    cores: int = Field(ge=1)
    """Cores of a job."""
    processes: int | None = Field(default=None, ge=1)
    """Workers of a job; one a core if None. Fewer leave more memory for each."""
    memory: str
    """Memory of a job, `16GB`."""
    walltime: str | None = None
    """Longest time of a job, HH:MM:SS, in quotes."""
    queue: str | None = None
    """Queue or partition."""
    account: str | None = None
    """Whom to charge."""
    project: str | None = None
    """The same, as LSF calls it."""
    job_extra_directives: tuple[str, ...] = ()
    """Further directives, without `#SBATCH` and its like."""
    job_script_prologue: tuple[str, ...] = ()
    """Shell commands before the workers start: modules to load, environments."""
    interface: str | None = None
    """Network interface, `ib0`."""
    local_directory: str | None = None
    """Where workers may write, `/scratch`."""
    log_directory: str | None = None
    """Where the jobs' output goes."""
    python: str | None = None
    """The interpreter on the nodes; None for this one."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of dask-jobqueue's class for the system, as they are."""

    @field_validator("walltime", mode="before")
    @classmethod
    def _quoted(cls, value: Any) -> Any:
        # YAML reads 12:00:00 as a number to the base of 60, and 04:00:00 as a string.
        if isinstance(value, int):
            text = f"{value // 3600:02d}:{value // 60 % 60:02d}:{value % 60:02d}"
            raise ValueError(f'YAML takes it for a number: write "{text}", in quotes')  # noqa: TRY004 - for pydantic
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> JobQueueOptions:
        if self.jobs is not None and (self.maximum is not None or self.minimum):
            raise ValueError(f"jobs = {self.jobs} beside minimum or maximum: give one or the other")
        if self.minimum > (self.minimum if self.maximum is None else self.maximum):
            raise ValueError(f"minimum = {self.minimum} is above maximum = {self.maximum}")
        if self.minimum and self.maximum is None:
            raise ValueError(f"minimum = {self.minimum} without maximum: give both")
        if self.processes is not None and self.processes > self.cores:
            raise ValueError(f"processes = {self.processes} are more than cores = {self.cores}")
        if self.account is not None and self.project is not None:
            raise ValueError(f"account = {self.account!r} and project = {self.project!r} are one: give one")
        twice = sorted(self.options.keys() & type(self).model_fields.keys())
        if twice:
            raise ValueError(f"options: {twice[0]} belongs one level up, beside system")
        return self

    def arguments(self) -> dict[str, Any]:
        """The arguments of dask-jobqueue's class."""
        own = (
            "cores",
            "memory",
            "walltime",
            "queue",
            "interface",
            "local_directory",
            "log_directory",
            "python",
        )
        found = {name: value for name in own if (value := getattr(self, name)) is not None}
        if self.system == "lsf" and self.walltime is not None:
            found["walltime"] = ":".join(self.walltime.split(":")[:2])  # LSF knows no seconds
        charged = self.account if self.project is None else self.project
        if charged is not None:
            found["project" if self.system == "lsf" else "account"] = charged
        found |= {
            "job_name": "crystallm",
            "processes": self.cores if self.processes is None else self.processes,
            "job_extra_directives": list(self.job_extra_directives),
            "job_script_prologue": [*_SINGLE, *self.job_script_prologue],
        }
        return found | self.options


def read_queue(path: Path) -> JobQueueOptions:
    """What a YAML file says of a queue.

    Raises:
        InputError: no mapping, an unknown key, or a value out of its range.
        CrystallmError: the file cannot be read.
    """
    values = read_mapping(path, EXAMPLE)
    if values is None:
        raise InputError(f"{path} must hold names and values, such as {EXAMPLE!r}")
    known = list(JobQueueOptions.model_fields)
    for name in values.keys() - known:
        raise InputError(
            f"{path}: unknown key {name!r}: {hint(name, known)}; dask-jobqueue's own go below 'options:'"
        )
    try:
        return validated(JobQueueOptions, values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def job_script(spec: str) -> str:
    """The script of one job that a YAML file asks for. Nothing is submitted.

    Raises:
        InputError, CrystallmError: as `read_queue`; dask-jobqueue is not installed, or refuses an option.
    """
    queue = read_queue(Path(spec))
    kind = _cluster_class(queue)
    import inspect

    from dask_jobqueue.core import JobQueueCluster

    # To make the cluster would start its scheduler; a job alone starts nothing, but takes fewer arguments.
    parameters = set(inspect.signature(JobQueueCluster.__init__).parameters)
    scheduler_only = parameters - {"interface", "protocol", "security", "config_name"}
    arguments = {name: value for name, value in queue.arguments().items() if name not in scheduler_only}
    with _refusing(spec):
        job = kind.job_cls("tcp://SCHEDULER:8786", name="crystallm", **arguments)
        return str(job.job_script())


def _cluster_class(queue: JobQueueOptions) -> Any:
    """dask-jobqueue's class for a queueing system."""
    try:
        import dask_jobqueue
    except ImportError:
        raise CrystallmError(MISSING) from None
    return getattr(dask_jobqueue, f"{queue.system.upper()}Cluster")


@contextmanager
def _refusing(spec: str) -> Iterator[None]:
    """Turn dask-jobqueue's complaints about its arguments into one line."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise InputError(f"{spec}: dask-jobqueue refuses it: {one_line(error)}") from None


@contextmanager
def start_jobs(queue: JobQueueOptions, spec: str) -> Iterator[Any]:
    """A scheduler in this process, and jobs of the queue for it, which end with the context."""
    kind = _cluster_class(queue)
    command = kind.job_cls.submit_command
    if shutil.which(command) is None:
        raise CrystallmError(
            f"{spec}: there is no {command!r} here: start this where jobs of {queue.system} are submitted"
        )
    # Two runs on one login node would fight for the port of Dask's web page.
    options = {"dashboard_address": ":0", **queue.options.get("scheduler_options", {})}
    import dask

    # A worker's death counts against all tasks that it was given; so it is given one at a time.
    with _refusing(spec), dask.config.set({"distributed.scheduler.worker-saturation": 1.0}):
        cluster = kind(**queue.arguments() | {"scheduler_options": options})
    with closing(cluster):
        if queue.maximum is not None:
            cluster.adapt(minimum_jobs=queue.minimum, maximum_jobs=queue.maximum)
        else:
            cluster.scale(jobs=queue.jobs or 1)
        yield cluster
