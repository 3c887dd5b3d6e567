"""A Dask cluster as an executor: a running one, or jobs of a queue (SLURM, PBS, LSF).

A cluster is given by the address of its scheduler, or by a YAML file for a queue; see `JobQueueOptions`. Each
worker has one thread and one core's share of the memory of a job, and its numerical libraries have one thread
too. If a worker dies, its tasks run again on another one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Executor, Future, InvalidStateError
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from crystallm.errors import CrystallmError, InputError, one_line
from crystallm.execution.job_queue import MISSING, read_queue, start_jobs
from crystallm.execution.tasks import TaskError, WorkerStartError, name_of
from crystallm.lazy import resolve
from crystallm.version import __version__

_LOG = logging.getLogger(__name__)
TIMEOUT = 10.0
"""Time in which a scheduler must answer, s."""
_ADDRESS = re.compile(r"(?:[a-z]+://)?(?:[\w.-]+|\[[\da-fA-F:.]+\]):\d{1,5}")


class VersionError(WorkerStartError, InputError):
    """A worker has another version of this package."""


@contextmanager
def connect(spec: str) -> Iterator[Executor]:
    """Yield an executor over a cluster. Its own jobs end with the context; a running cluster stays.

    Args:
        spec: address of a Dask scheduler, `tcp://host:8786`, or a YAML file for a queue.

    Raises:
        InputError: it is neither, or the file is invalid; see `read_queue`.
        CrystallmError: Dask is not installed, no scheduler answers, or this machine has no such queue.
    """
    if Path(spec).suffix in {".yaml", ".yml"} or Path(spec).is_file():
        queue = read_queue(Path(spec))
    elif _ADDRESS.fullmatch(spec):
        queue = None
    else:
        raise InputError(
            f"cluster = {spec!r}: write a scheduler's address, tcp://host:8786, or name a queue's YAML file"
        )
    with ExitStack() as stack:
        target = spec if queue is None else stack.enter_context(start_jobs(queue, spec))
        client = stack.enter_context(_client(target, spec))
        executor = ClusterExecutor(client, spec)
        if queue is None and not client.scheduler_info()["workers"]:
            _LOG.warning("the cluster %s has no workers yet: waiting for them", spec)
        try:
            yield executor
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def _client(target: Any, spec: str) -> Any:
    """Return a connection to a scheduler, given by its address or as a cluster."""
    try:
        import distributed
    except ImportError:
        raise CrystallmError(MISSING) from None
    connected: Any = distributed.Client  # it has types for a part only
    try:
        return connected(target, timeout=TIMEOUT, set_as_default=False)
    except OSError:
        raise CrystallmError(
            f"no Dask scheduler answers at {spec!r} within {TIMEOUT:g} s: is it running, and can it be "
            "reached from here?"
        ) from None
    except (TypeError, ValueError) as error:  # tls:// without certificates, an unknown scheme
        raise InputError(f"cluster = {spec!r}: {one_line(error)}") from None


class ClusterExecutor(Executor):
    """Runs tasks on the workers of a Dask cluster.

    A task whose worker dies runs again on another one. After several deaths its future has a TaskError. A
    task that raises is not tried again.
    """

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name
        self._running: dict[Future[Any], Any] = {}
        self._closed = False

    def submit(self, function: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function of a module on one JSON value. Raises RuntimeError: after `shutdown`."""
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if len(args) != 1 or kwargs:
            raise InputError(f"a task is one JSON value, not {len(args) + len(kwargs)}: put them into a dict")
        inner = self._client.submit(call, __version__, name_of(function), args[0], pure=False)
        outer: Future[Any] = Future()
        self._running[outer] = inner
        outer.add_done_callback(self._forget)
        inner.add_done_callback(partial(self._settle, outer))
        return outer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks.

        Args:
            cancel_futures: cancel them, also those that have begun.
        """
        self._closed = True
        outstanding = list(self._running)
        if cancel_futures:
            inner = list(self._running.values())
            self._running.clear()  # they are cancelled together below, in one message
            for future in outstanding:
                future.cancel()
            self._client.cancel(inner)
        if wait:
            futures.wait(outstanding)

    def _forget(self, outer: Future[Any]) -> None:
        inner = self._running.pop(outer, None)
        if outer.cancelled() and inner is not None:
            inner.cancel()

    def _settle(self, outer: Future[Any], inner: Any) -> None:
        """Copy the outcome of Dask's future; called in a thread of Dask."""
        if outer.cancelled():
            return
        value, error = None, None
        if inner.status == "finished":
            try:
                value = inner.result()
            except Exception as problem:  # noqa: BLE001 - the future's reader decides
                error = problem
        elif inner.status == "error":
            error = inner.exception()
            if type(error).__name__ == "KilledWorker":
                error = TaskError(f"its worker died {error.allowed_failures + 1} times")
        else:
            error = WorkerStartError(
                f"the cluster {self._name} has gone; with --out, the same command resumes"
            )
        with suppress(InvalidStateError):  # cancelled meanwhile
            if error is None:
                outer.set_result(value)
            else:
                outer.set_exception(error)


def call(version: str, name: str, task: Any) -> Any:
    """Return the value of a function, given by its name; runs on a worker.

    Raises:
        VersionError: the caller has another version of this package.
    """
    if version != __version__:
        raise VersionError(
            f"the workers have crystallm {__version__}, and here is {version}: install one on both"
        )
    return resolve(name)(task)
