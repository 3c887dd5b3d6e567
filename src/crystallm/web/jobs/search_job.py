"""A search as a job, in a thread of its own.

A search samples apart from the engine, which serves the other jobs. It checks crystals and computes energies
in processes of its own, which stay for the next search. After each round it reports its progress, where the
lowest energy fell, and new crystals; between rounds it stops if its job has ended. Rounds are in a journal
before they are reported. An interrupted search is rebuilt from it, and what was not reported comes first.
Does not depend on how a search works.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError
from crystallm.generation.analogues import library_of, resolve_source
from crystallm.generation.request import SamplingOptions
from crystallm.structure_search.options import SearchOptions, sampling_of
from crystallm.structure_search.search import Search
from crystallm.web.jobs.ranking import rank
from crystallm.web.request_check import generation_request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    from crystallm.structure_search.results import SearchSample, State
    from crystallm.web.jobs.job import Job
    from crystallm.web.jobs.services import JobServices
    from crystallm.web.schemas import SearchRequest

    Item = str | tuple[State, list[SearchSample]]

_LOG = logging.getLogger(__name__)
ENERGY_SECONDS = 60.0
"""Limit for one energy."""

TIME_SHARE = 0.8
"""Share of a job's time in which a search begins rounds, so that it ends in time, with results."""


async def run(services: JobServices, job: Job, request: SearchRequest) -> None:
    """Run a search.

    Raises:
        CrystallmError: the energy model cannot be loaded, the results cannot be stored, or the journal of the
            search cannot be read.
    """

    def work(executor: Executor, put: Callable[[Item], None]) -> str:
        try:
            search = build_search(services, request, job.search_log)
            search.executor = executor
            put(search.note)
            search.run(on_round=lambda state, samples: put((state, list(samples))))
        except CrystallmError as error:
            if str(job.search_log.parent) not in str(error):
                raise
            _LOG.error("job %s: %s", job.id, error)  # clients do not see our paths
            message = "the journal of this search cannot be read or written: submit it again"
            raise CrystallmError(message) from error
        return search.stopped

    report = SearchReport(services, job, request, await asyncio.to_thread(job.results))
    note = ""
    async with services.search_threads.stream(work) as stream:
        async for item in stream:
            if isinstance(item, str):
                note = item
                job.set_state("running", note=note, total=request.simulations)
            else:
                await report.add_round(*item)
        stopped = stream.result
    await rank(services, job, report.summaries, by_energy=True)
    if reason := stopped or report.time_limit_reason():
        job.set_state("running", note=f"{note}; ended early: {reason}", total=request.simulations)
    with contextlib.suppress(OSError):  # done: it will not be resumed
        job.search_log.unlink(missing_ok=True)


def build_search(services: JobServices, request: SearchRequest, log: Path | None = None) -> Search:
    """Return the search of a request, rebuilt from its journal if there is one."""
    model = services.model(request.model)
    options = SearchOptions.build(
        {
            "preset": request.preset,
            "simulations": request.simulations,
            "energy_calls": request.energy_calls,
            "minutes": TIME_SHARE * services.limits.job_timeout / 60,
            "energy": request.energy,
            "energy_timeout": ENERGY_SECONDS,
        }
    )
    sampling = SamplingOptions.build(
        {
            "model": model.name,
            "seed": request.seed or 0,
            "batch_size": services.batch_size,
            "device": "cpu",  # of the energy model, as for the other kinds
        }
    )
    sampling = sampling_of(options, sampling)
    return Search(
        model,
        generation_request(request),
        options,
        sampling,
        log,
        max_atoms=services.limits.max_cell_atoms,
        log_samples=True,
        library=library_of(resolve_source(None, model.name)),
    )


class SearchReport:
    """Reports a search as events, each fact once, `earlier` results before an interruption included."""

    def __init__(
        self, services: JobServices, job: Job, request: SearchRequest, earlier: dict[str, Any]
    ) -> None:
        self.summaries: dict[int, dict[str, Any]] = {s["number"]: s for s in earlier["crystals"]}
        self._services, self._job, self._request = services, job, request
        self._state: State | None = None
        self._lowest: float | None = None
        progress = earlier.get("progress") or {"simulations": 0, "energy_calls": 0}
        self._reported_simulations = progress["simulations"]
        self._number_by_call = {s["energy_call"]: number for number, s in self.summaries.items()}
        self._reported_calls = max([progress["energy_calls"], *self._number_by_call])
        self._reported_curve = {point["call"] for point in earlier.get("curve", ())}
        self._without_energy: dict[str, int] = {}  # numbers of reported crystals, by form

    async def add_round(self, state: State, samples: Sequence[SearchSample]) -> None:
        """Report a round: the curve, and new crystals in the order in which they were sampled."""
        new = [sample for sample in samples if sample.call is not None]
        self._add_curve(new)
        for sample in new:
            if (sample.call or 0) <= self._reported_calls:
                if sample.crystal.energy is None and sample.call in self._number_by_call:
                    self._without_energy[sample.form] = self._number_by_call[sample.call]
            elif (number := self._without_energy.pop(sample.form, None)) is not None:
                self._update_energy(number, sample)
            elif self._is_reported(sample):
                await self._add_crystal(sample)
        self._state = state
        if state.simulations <= self._reported_simulations:
            return
        self._update_ranks()
        progress = {
            "simulations": state.simulations,
            "energy_calls": state.calls,
            "texts": state.texts,
            "plausible": state.plausible,
            "energy": state.best,
        }
        self._job.add_event("progress", progress)

    def time_limit_reason(self) -> str:
        """Return why a search has ended before its own limits; "" for one that met them."""
        state, request = self._state, self._request
        n = 0 if state is None else state.simulations
        calls = 0 if state is None else state.calls
        if n >= request.simulations or (request.energy_calls is not None and calls >= request.energy_calls):
            return ""
        seconds = TIME_SHARE * self._services.limits.job_timeout
        return f"{n} of {request.simulations} simulations in {seconds:g} s, the time limit for a search"

    def _add_curve(self, samples: Sequence[SearchSample]) -> None:
        for sample in samples:
            energy = sample.crystal.energy
            if energy is None or (self._lowest is not None and energy >= self._lowest):
                continue
            self._lowest = energy
            if sample.call not in self._reported_curve:
                point = {"step": sample.simulation + 1, "energy": energy, "call": sample.call}
                self._job.add_event("curve", point)

    def _is_reported(self, sample: SearchSample) -> bool:
        """Whether a crystal is among the first n, or the n lowest so far."""
        max_n = self._request.n or self._services.limits.max_samples
        if len(self.summaries) < max_n:
            return True
        energy = sample.crystal.energy
        lowest = sorted(s["energy"] for s in self.summaries.values() if s["energy"] is not None)
        return energy is not None and (len(lowest) < max_n or energy < lowest[max_n - 1])

    async def _add_crystal(self, sample: SearchSample) -> None:
        crystal = sample.crystal
        if sample.sample is None:  # a journal without samples
            return
        number = len(self.summaries)
        summary = await self._services.summary(number, sample.sample, crystal, check=False)
        summary |= _energy_facts(sample)
        if crystal.energy is None:
            summary["energy_reason"] = crystal.energy_reason
        self.summaries[number] = summary
        self._job.add_event("crystal", summary)
        self._services.metrics.crystals.labels("search").inc()

    def _update_energy(self, number: int, sample: SearchSample) -> None:
        """Report the energy of a crystal that had none before an interruption."""
        update = {**_energy_facts(sample), "number": number, "energy_reason": sample.crystal.energy_reason}
        self.summaries[number] |= update
        self._job.add_event("update", [update])

    def _update_ranks(self) -> None:
        """Rank by energy, and report the ranks that have changed."""
        with_energy = [summary for summary in self.summaries.values() if summary["energy"] is not None]
        with_energy.sort(key=lambda summary: (summary["energy"], summary["number"]))
        changed = []
        for position, summary in enumerate(with_energy, start=1):
            if summary.get("rank") != position:
                summary["rank"] = position
                changed.append({"number": summary["number"], "rank": position})
        if changed:
            self._job.add_event("update", changed)


def _energy_facts(sample: SearchSample) -> dict[str, Any]:
    """Return the energy of a crystal, and in which simulation and call it was computed."""
    return {
        "energy": sample.crystal.energy,
        "simulation": sample.simulation + 1,
        "energy_call": sample.call,
        "move": sample.move,
    }
