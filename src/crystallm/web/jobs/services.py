"""What the jobs of a server share: models, sampling threads, worker pools, limits and metrics.

Does not depend on the kinds of jobs.
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

from crystallm.crystals.ranking import probability_of
from crystallm.energy import calculations, protocol, worker
from crystallm.errors import CrystallmError
from crystallm.execution.pool import ProcessPool
from crystallm.execution.tasks import DEFAULT_LIMITS, Limits, TaskError, WorkerStartError
from crystallm.structures import conversion
from crystallm.structures.duplicates import cluster_duplicates
from crystallm.version import __version__
from crystallm.web.jobs import crystal_tasks
from crystallm.web.jobs.fair_pool import FairPool
from crystallm.web.jobs.text_engine import SamplingJob, TextEngine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from concurrent.futures import Executor

    from crystallm.crystals.crystal import Crystal
    from crystallm.energy.relaxation import RelaxOptions
    from crystallm.models.model import Model
    from crystallm.sampling.sequence import Sample, SequenceRequest
    from crystallm.web.metrics import Metrics
    from crystallm.web.options import ServerLimits

    Function = Callable[..., Any] | str

ENERGY_LIMITS = Limits(60.0, worker.MEMORY_GB)
RELAX_LIMITS = Limits(calculations.RELAX_SECONDS, worker.MEMORY_GB)


class StopSignal:
    """Stops a search from another thread: its processes at once, itself after its round."""

    def __init__(self) -> None:
        self.kill: Callable[[], None] = lambda: None
        self._stopped = threading.Event()

    def set(self) -> None:
        """Stop the search."""
        self._stopped.set()
        self.kill()

    def is_set(self) -> bool:
        """Whether the search is to stop."""
        return self._stopped.is_set()


class SearchThreads:
    """Threads of n searches, each with worker processes that stay for the next search."""

    def __init__(self, n: int) -> None:
        self._threads = ThreadPoolExecutor(n, thread_name_prefix="crystallm-search")
        self._pools: dict[int, ProcessPool] = {}  # by thread

    def run(self, search: Callable[[Executor], Any], stop: StopSignal) -> asyncio.Future[Any]:
        """Run a search with the pool of its thread; `stop` ends its processes as well."""

        def run_in_thread() -> Any:
            thread = threading.get_ident()
            pool = self._pools.setdefault(thread, ProcessPool(1))

            def kill() -> None:
                self._pools.pop(thread, None)
                pool.kill()

            stop.kill = kill
            return search(pool)

        return asyncio.get_running_loop().run_in_executor(self._threads, run_in_thread)

    def stream(self, work: Callable[[Executor, Callable[[Any], None]], Any]) -> ThreadStream:
        """Return the stream of a function in a thread; see there."""
        return ThreadStream(self, work)

    def close(self, *, wait: bool = False) -> None:
        """End the processes now, and the threads as soon as their rounds are over."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for pool in tuple(self._pools.values()):
            pool.kill()
        if wait:
            self._threads.shutdown(wait=True)


class _StoppedError(Exception):
    """The job has ended."""


class ThreadStream:
    """What a function in a thread reports, as it reports it; leaving the context ends the function.

    Args:
        work: takes an executor, and a function that reports an item, which raises where the job has ended.

    Attributes:
        result: what the function returned, after all items.
    """

    def __init__(
        self, threads: SearchThreads, work: Callable[[Executor, Callable[[Any], None]], Any]
    ) -> None:
        self.result: Any = None
        self._threads, self._work = threads, work
        self._stop = StopSignal()
        self._arrived: asyncio.Queue[Any] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()

        def put(item: Any) -> None:
            if self._stop.is_set():
                raise _StoppedError
            loop.call_soon_threadsafe(self._arrived.put_nowait, item)

        self._future = self._threads.run(lambda executor: self._work(executor, put), self._stop)
        self._future.add_done_callback(lambda _: self._arrived.put_nowait(None))
        return self

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (item := await self._arrived.get()) is not None:
            yield item
        self.result = await self._future

    async def __aexit__(self, *_: object) -> None:
        if not self._future.done():
            self._stop.set()
            self._future.cancel()


class JobServices:
    """What jobs share; see the module.

    Args:
        models: loaded, by name; the first one is the default.
        check_workers: processes for summaries and checks; None for half the cores, at most 8.

    Attributes:
        on_broken: called, by another thread, when the network cannot sample any more.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        energy_models: Sequence[str],
        limits: ServerLimits,
        metrics: Metrics,
        *,
        check_workers: int | None = None,
        energy_workers: int = 1,
        batch_size: int = 32,
    ) -> None:
        self.models = dict(models)
        self.energy_models = list(energy_models)
        self.limits = limits
        self.metrics = metrics
        self.batch_size = batch_size
        self.on_broken: Callable[[], None] = lambda: None
        self.engines = {
            name: TextEngine(model.network, batch_size, self._report_broken) for name, model in models.items()
        }
        self.search_threads = SearchThreads(limits.max_searches)
        self._check_pool = FairPool(check_workers or max(1, min(8, (os.cpu_count() or 1) // 2)))
        self._energy_pool = FairPool(energy_workers)
        self._duplicate_pool = FairPool(1)

    def start(self) -> None:
        """Start the engines."""
        for engine in self.engines.values():
            engine.start()

    def close(self) -> None:
        """End the engines and all processes."""
        for pool in (self._check_pool, self._energy_pool, self._duplicate_pool):
            pool.kill()
        self.search_threads.close()
        for engine in self.engines.values():
            engine.close()

    def _report_broken(self) -> None:
        self.on_broken()  # which is set after the engines were made

    @property
    def broken(self) -> str:
        """Why the network cannot sample any more; "" if it can."""
        return next((engine.broken for engine in self.engines.values() if engine.broken), "")

    def model(self, name: str | None) -> Model:
        """Return a model by name; the default one for None."""
        return self.models[name or next(iter(self.models))]

    def origin(self, request: Mapping[str, Any]) -> str:
        """Return what else decides the crystals of a request: the version and the weights."""
        if "model" not in request:
            return __version__
        model = self.models.get(request["model"])
        return f"{__version__} {'' if model is None else model.fingerprint}"

    async def sample(
        self, model: str, sequences: Sequence[SequenceRequest]
    ) -> AsyncIterator[tuple[int, Sample]]:
        """Yield (index, sample) of sequences as the engine finishes them; CrystallmError if it fails."""
        if not sequences:
            return
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[tuple[int, Sample] | str] = asyncio.Queue()

        def put(item: tuple[int, Sample] | str) -> None:
            loop.call_soon_threadsafe(arrived.put_nowait, item)

        job = SamplingJob(sequences, lambda index, sample: put((index, sample)), put)
        engine = self.engines[model]
        engine.put(job)
        try:
            for _ in sequences:
                item = await arrived.get()
                if isinstance(item, str):
                    raise CrystallmError(f"the network failed: {item}")
                yield item
        finally:
            engine.drop(job)

    async def summary(
        self, number: int, sample: Sample | None, crystal: Crystal, *, check: bool = True
    ) -> dict[str, Any]:
        """Return the summary of crystal `number` of a job.

        Args:
            sample: that it was read from; None for one that was made of a known crystal.
            check: whether to check it; False if it was checked already.
        """
        source = crystal.source
        head: dict[str, Any] = {"number": number}
        if source is not None:
            head |= {"seed": source.seed, "sample_index": source.index, "model": source.model}
            head["request"] = source.request
            if source.relative is not None:
                head |= {"relative": source.relative._asdict(), "probability": probability_of(crystal)}
        task: dict[str, Any] = {
            "language": crystal.language.name,
            "ids": list(crystal.ids),
            "n_requested": crystal.n_prompt,
            "log_likelihood": crystal.log_likelihood,
            "ended": crystal.ended,
        }
        if sample is not None:
            task |= {
                "n_prompt": sample.n_prompt,
                "forced": [int(is_forced) for is_forced in sample.forced],
                "log_probs": list(sample.log_probs),
            }
        checked: dict[str, Any] = {}
        if check:
            try:
                summary = await self.check(crystal_tasks.crystal_summary, task | {"check": True})
                return head | dict(summary)
            except TaskError as error:
                checked = {"valid": False, "plausible": False, "reasons": [f"not checked: {error.reason}"]}
        else:
            checked = crystal_tasks.validity_summary(crystal.validity)
        try:
            summary = await self.check(crystal_tasks.crystal_summary, task | {"check": False})
        except TaskError as error:
            summary = {"broken": f"not read: {error.reason}"}
        return head | dict(summary) | checked

    async def uploaded_summary(self, text: str, read_as: str | None = None) -> dict[str, Any]:
        """Return the summary of an uploaded structure, with checks if it says how to read it."""
        task = {"text": text, "read_as": read_as}
        try:
            summary: dict[str, Any] = await self.check(crystal_tasks.uploaded_summary, task)
        except TaskError as error:
            summary = {"broken": error.reason}
            if read_as is not None:
                summary |= {"valid": False, "plausible": False, "reasons": [f"not checked: {error.reason}"]}
        return summary

    async def energy(self, structure: dict[str, Any], model: str) -> dict[str, Any]:
        """Return `energy`, eV per atom, or None with `energy_reason`."""
        task = {"structures": [structure], "bound": protocol.BOUND}
        name = worker.function_of("scoring", model, "cpu")
        try:
            (answer,) = await self._call(self._energy_pool, name, task, ENERGY_LIMITS)
        except TaskError as error:
            return {"energy": None, "energy_reason": error.reason}
        if "failed" in answer:
            return {"energy": None, "energy_reason": answer["failed"]}
        return {"energy": answer["energy"]}

    async def relax(self, structure: dict[str, Any], model: str, options: RelaxOptions) -> dict[str, Any]:
        """Return `energy` and the summary `relaxed` of a relaxed structure, or None and `energy_reason`."""
        task = {"structure": structure, "options": options.model_dump(), "bound": protocol.BOUND}
        name = worker.function_of("relaxing", model, "cpu")
        try:
            record = await self._call(self._energy_pool, name, task, RELAX_LIMITS)
            if "failed" in record:
                return {"energy": None, "energy_reason": record["failed"]}
            summary = await self.check(crystal_tasks.relaxed_summary, {"record": record})
        except TaskError as error:
            return {"energy": None, "energy_reason": error.reason}
        return {"energy": record["energy"], "relaxed": summary}

    async def clusters(self, structures: Sequence[dict[str, Any] | None]) -> list[int | None]:
        """Return for each structure the number of its cluster of duplicates; None for None."""

        def compare(pool: ProcessPool) -> list[int | None]:
            row = [None if record is None else conversion.from_json(record) for record in structures]
            return cluster_duplicates([row], workers=1, executor=pool)[0]

        found: list[int | None] = await self._duplicate_pool.call(compare)
        return found

    async def check(self, function: Function, task: Mapping[str, Any]) -> Any:
        """Run a crystal task in a worker process; TaskError if it fails, CrystallmError if none starts."""
        return await self._call(self._check_pool, function, task, DEFAULT_LIMITS)

    async def _call(self, pool: FairPool, function: Function, task: Any, limits: Limits) -> Any:
        try:
            return await pool.run(function, task, limits)
        except WorkerStartError as error:
            raise CrystallmError(str(error)) from None
