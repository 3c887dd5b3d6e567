"""Run a function over many tasks on any `concurrent.futures.Executor`: values, or why a task failed.

A pathological crystal makes the libraries that check it run for minutes or allocate 20 GB. In a `ProcessPool`
each task has limits of time and memory, and its process is killed when it exceeds one; that costs the task
its value and nothing else. Other executors, such as a cluster's, take the same tasks: a function of a module
and one JSON value. They have no limits themselves, so a task with limits runs in a process beside the worker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sized
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import closing, contextmanager
from dataclasses import asdict
from itertools import islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from crystallm.errors import InputError, describe
from crystallm.execution.pool import Inline, ProcessPool, worker_pool
from crystallm.execution.tasks import (
    DEFAULT_LIMITS,
    UNLIMITED,
    Failure,
    Limits,
    TaskError,
    WorkerStartError,
    name_of,
    resolve_function,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    Function = Callable[..., Any] | str

Task = TypeVar("Task")
AHEAD = 1000
"""Default number of tasks that an executor of unknown size has at the same time."""
CHUNK = 20
"""Maximum number of tasks that travel to such an executor together: to schedule one costs milliseconds."""

LOST_ATTEMPTS = 2
"""How often a task is tried whose process dies."""
_CHUNKS = 64
"""Minimum number of chunks of few tasks, to keep many workers busy."""


def map_tasks(
    executor: Executor,
    function: Function,
    tasks: Iterable[Task],
    *,
    ahead: int,
    limits: Limits | None = DEFAULT_LIMITS,
    attempts: int = 1,
    split: Callable[[Task], Sequence[Task]] | None = None,
) -> Generator[tuple[Task, Any]]:
    """Apply a function to tasks, which are drawn as needed, and yield values as they complete.

    Args:
        function: of a module, from one JSON value to one; or its name, `package.module:name`.
        tasks: JSON values; may be endless.
        ahead: maximum number of tasks that are drawn and not done.
        limits: of one task; None for tasks that open processes themselves. `Inline` has no limits.
        attempts: how often a task is tried before it counts as failed; twice at least where its process
            died, which somebody else may have killed.
        split: parts of a task, which are run in place of a task that failed; one part or none: it has failed.

    Returns:
        An iterator over (task, its value or a `Failure`). Closing it cancels what has not begun.

    Raises:
        InputError: `ahead` or `attempts` is below 1.
        WorkerStartError: while iterating, if a process cannot import the function.
    """
    if ahead < 1 or attempts < 1:
        raise InputError(f"{ahead=} and {attempts=} must be positive")
    return _pairs(_map(executor, function, tasks, ahead=ahead, limits=limits, attempts=attempts, split=split))


def _pairs(results: Generator[tuple[int, Any, Any]]) -> Generator[tuple[Any, Any]]:
    with closing(results):
        for _, task, value in results:
            yield task, value


def run_tasks(
    executor: Executor | None,
    function: Function,
    tasks: Sequence[Any],
    *,
    workers: int | None = None,
    limits: Limits | None = DEFAULT_LIMITS,
    on_done: Callable[[int], None] | None = None,
) -> list[Any]:
    """Apply a function to tasks and return values or failures in the order of the tasks; see `map_tasks`."""
    values: list[Any] = [Failure("not run")] * len(tasks)
    if not tasks:
        return values
    with (
        open_executor(executor, workers, len(tasks)) as (opened, ahead),
        closing(_map(opened, function, tasks, ahead=ahead, limits=limits)) as results,
    ):
        for index, _, value in results:
            values[index] = value
            if on_done is not None:
                on_done(index)
    return values


@contextmanager
def open_executor(
    executor: Executor | None, workers: int | None = None, n_tasks: int | None = None
) -> Iterator[tuple[Executor, int]]:
    """Yield an executor and how many tasks to draw ahead of those that are done.

    Args:
        executor: to use; None opens a process pool, which ends with the context.
        workers: processes that work at the same time: by default one, or all of a given pool.
    """
    if workers is not None and workers < 1:
        raise InputError(f"{workers=} must be positive")
    if executor is None:
        n = max(1, min(workers or 1, n_tasks or AHEAD))
        with ProcessPool(n) as pool:
            yield pool, 2 * n
    elif not isinstance(executor, ProcessPool):
        yield executor, AHEAD
    elif workers is None:
        yield executor, 2 * executor.workers
    else:  # each task under way may start a process: no more of them than requested
        yield executor, min(workers, executor.workers)


class _Item(NamedTuple):
    """A task, its number, and how often it has been tried."""

    number: int
    task: Any
    attempt: int


def _map(
    executor: Executor,
    function: Function,
    tasks: Iterable[Any],
    *,
    ahead: int,
    limits: Limits | None,
    attempts: int = 1,
    split: Callable[[Any], Sequence[Any]] | None = None,
) -> Generator[tuple[int, Any, Any]]:
    """Yield (number of the task, task, value) as they complete; retries come before new tasks."""
    submit, size = _submitter(executor, function, tasks, limits)
    again: deque[_Item] = deque()
    new = (_Item(number, task, 1) for number, task in enumerate(tasks))
    completed: SimpleQueue[Future[Any]] = SimpleQueue()
    running: dict[Future[Any], list[_Item]] = {}
    n_running = 0
    try:
        while True:
            while n_running < ahead:
                retries = [again.popleft() for _ in range(min(len(again), size))]
                items = retries or list(islice(new, min(size, ahead - n_running)))
                if not items:
                    break
                future = _submitted(submit, [item.task for item in items])
                running[future] = items
                n_running += len(items)
                future.add_done_callback(completed.put)
            if not running:
                return
            future = completed.get()
            items = running.pop(future)
            n_running -= len(items)
            for item, value in zip(items, _values(future, len(items)), strict=True):
                if isinstance(value, Failure) and (more := _retries(item, value, attempts, split)):
                    again.extend(more)
                else:
                    yield item.number, item.task, value
    finally:
        for future in running:
            future.cancel()


def _submitter(
    executor: Executor, function: Function, tasks: Iterable[Any], limits: Limits | None
) -> tuple[Callable[[list[Any]], Future[Any]], int]:
    """Return how tasks are submitted, to a future of the list of their values, and how many together."""
    if isinstance(executor, ProcessPool):
        name, how = name_of(function), limits or UNLIMITED
        return lambda some: executor.submit_task(name, some[0], how), 1
    if limits is None or isinstance(executor, Inline):
        work = resolve_function(function)
        return lambda some: executor.submit(work, some[0]), 1
    group = {"function": name_of(function), **asdict(limits)}
    size = max(1, min(CHUNK, len(tasks) // _CHUNKS)) if isinstance(tasks, Sized) else 1
    return lambda some: executor.submit(_run_beside, group | {"tasks": some}), size


def _run_beside(group: Mapping[str, Any]) -> _Packed:
    """Run tasks with limits on a worker that has none, in a process beside it."""
    limits = Limits(group["seconds"], group["memory_gb"])
    values = run_tasks(worker_pool(), group["function"], group["tasks"], workers=1, limits=limits)
    return _Packed({"failed": v.reason} if isinstance(v, Failure) else {"value": v} for v in values)


class _Packed(list[dict[str, Any]]):
    """Values of several tasks, each a `value` or why it `failed`."""


def _submitted(submit: Callable[[list[Any]], Future[Any]], tasks: list[Any]) -> Future[Any]:
    try:
        return submit(tasks)
    except BrokenExecutor as error:  # it broke under an earlier task, and says so at once
        future: Future[Any] = Future()
        future.set_exception(error)
        return future


def _values(future: Future[Any], n: int) -> list[Any]:
    """Return the values of the n tasks of a future that is done."""
    value = _value(future)
    if isinstance(value, _Packed):
        return [Failure(packed["failed"]) if "failed" in packed else packed["value"] for packed in value]
    return [value] * n


def max_attempts(attempts: int, *, lost: bool) -> int:
    """Return how often a task is tried that failed, or whose process was lost."""
    return max(attempts, LOST_ATTEMPTS) if lost else attempts


def _retries(
    item: _Item, failure: Failure, attempts: int, split: Callable[[Any], Sequence[Any]] | None
) -> list[_Item]:
    """Return what is run in place of a task that failed."""
    if item.attempt < max_attempts(attempts, lost=failure.lost):
        return [item._replace(attempt=item.attempt + 1)]
    parts = [] if split is None else split(item.task)
    return [_Item(item.number, part, 1) for part in parts] if len(parts) > 1 else []


def _value(future: Future[Any]) -> Any:
    """Return the value of a future that is done, or a `Failure`."""
    try:
        return future.result()
    except WorkerStartError:
        raise
    except TaskError as error:
        return Failure(error.reason, error.lost)
    except CancelledError:
        return Failure("cancelled")
    except BrokenExecutor:
        return Failure("the worker process died", lost=True)
    except Exception as error:  # noqa: BLE001 - one task's failure is that task's result
        return Failure(describe(error))
