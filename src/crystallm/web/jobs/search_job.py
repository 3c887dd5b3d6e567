"""Searches as jobs: each in a thread beside the engine, its crystals told as they are found.

A search writes with a writer of its own (see `crystallm.structure_search.search`), so that the engine's
batches are those
of the other jobs alone, and judges and asks for energies in processes of its own, which stay for the next
search. Behind each round it is told how far it is, where the lowest energy fell, and which crystals are new;
between rounds it is ended, if its job is. Its rounds are in a log before they are told: one that was
interrupted is built again from it, and what the log has and nobody was told is told first. Refuses to know
how a search finds anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError
from crystallm.execution import mapping
from crystallm.generation.request import Request, SamplingOptions
from crystallm.options import validated
from crystallm.structure_search.options import split
from crystallm.structure_search.search import Search

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from crystallm.structure_search.search import SearchSample, State
    from crystallm.web import schemas
    from crystallm.web.jobs.job import Job
    from crystallm.web.jobs.runner import JobRunner


_LOG = logging.getLogger(__name__)

ENERGY_SECONDS = 60.0
"""Limit for one energy."""

SHARE = 0.8
"""Of a job's time in which a search begins rounds: so it ends with what it has, where the time is short."""


class SearchThreads:
    """The threads in which searches are done, and the processes that they keep.

    Args:
        n: searches at a time.
    """

    def __init__(self, n: int) -> None:
        self._pool = ThreadPoolExecutor(n, thread_name_prefix="crystallm-search")
        self._kills: dict[int, Callable[[], None]] = {}  # by thread

    def do(self, work: Callable[[], str], stop: _Stop) -> asyncio.Future[str]:
        """Begin to search; `stop` ends the processes of the search as well."""

        def begun() -> str:
            with mapping.kept() as kill:
                self._kills[threading.get_ident()] = stop.kill = kill
                stop.check()
                return work()

        return asyncio.get_running_loop().run_in_executor(self._pool, begun)

    def close(self) -> None:
        """End the threads as soon as their rounds are done, and their processes now."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for kill in tuple(self._kills.values()):
            kill()


class _StoppedError(Exception):
    """Nobody waits for the search any more."""


@dataclass
class _Stop:
    """Ends a search from another thread: its processes now, itself behind its round."""

    kill: Callable[[], None] = lambda: None
    _set: threading.Event = field(default_factory=threading.Event)

    def set(self) -> None:
        self._set.set()
        self.kill()

    def check(self) -> None:
        if self._set.is_set():
            raise _StoppedError


async def run(runner: JobRunner, job: Job, ask: schemas.Search) -> None:
    """Do a search.

    Raises:
        CrystallmError: the energy model cannot be loaded, the results cannot be kept, or what was kept of it
            cannot be read.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[str | tuple[State, list[SearchSample]] | None] = asyncio.Queue()
    stop = _Stop()

    def tell(item: str | tuple[State, list[SearchSample]]) -> None:
        stop.check()
        loop.call_soon_threadsafe(arrived.put_nowait, item)

    def work() -> str:
        try:
            search = _search(runner, ask, job.search_log)
            tell(search.note)
            search.run(on_round=lambda state, found: tell((state, list(found))))
        except CrystallmError as error:
            if str(job.search_log.parent) not in str(error):
                raise
            _LOG.error("job %s: %s", job.name, error)  # a client hears of no folder of ours
            raise CrystallmError("what is kept of this search cannot be read or written: ask anew") from error
        return search.stopped

    telling = _Telling(runner, job, ask, await asyncio.to_thread(job.known))
    future = runner.searchers.do(work, stop)
    future.add_done_callback(lambda _: arrived.put_nowait(None))
    note = ""
    try:
        while (item := await arrived.get()) is not None:
            if isinstance(item, str):
                note = item
                job.enter("running", note=note, total=ask.simulations)
            else:
                await telling.round(*item)
        stopped = await future
    finally:
        if not future.done():
            stop.set()
            future.cancel()
    await runner.rank(job, telling.sheets, ask)
    if why := stopped or telling.short():
        job.enter("running", note=f"{note}; ended early: {why}", total=ask.simulations)
    with contextlib.suppress(OSError):  # it is done: nobody goes on with it
        job.search_log.unlink(missing_ok=True)


def _search(runner: JobRunner, ask: schemas.Search, log: Path | None = None) -> Search:
    """The search that is asked for, as far as its log has it already."""
    model = runner.models[ask.model or next(iter(runner.models))]
    given = {
        "simulations": ask.simulations,
        "energy_calls": ask.energy_calls,
        "minutes": SHARE * runner.limits.job_seconds / 60,
        "energy": ask.energy,
        "energy_seconds": ENERGY_SECONDS,
        "model": model.name,
        "seed": ask.seed or 0,
        "batch_size": runner.batch_size,
        "device": "cpu",  # of the energy model, as for the other kinds
    }
    options, rest = split(ask.recipe, given)
    group = None if ask.space_group is None else str(ask.space_group)
    request = validated(Request, {"formula": ask.formula, "z": ask.z, "space_group": group})
    settings = validated(SamplingOptions, rest)
    most_atoms = runner.limits.atoms
    return Search(model, request, options, settings, log, most_atoms=most_atoms, log_samples=True)


class _Telling:
    """What a job tells of a search: each thing once, whatever of it was told before an interruption.

    Args:
        runner: of the job.
        job: that tells.
        ask: what was asked.
        known: what was told, see `jobs.view`.

    Attributes:
        sheets: of the crystals that were told, by number.
    """

    def __init__(self, runner: JobRunner, job: Job, ask: schemas.Search, known: dict[str, Any]) -> None:
        self.sheets: dict[int, dict[str, Any]] = {one["number"]: one for one in known["crystals"]}
        self._runner, self._job, self._ask = runner, job, ask
        self._state: State | None = None
        self._best: float | None = None
        progress = known.get("progress") or {"simulations": 0, "energy_calls": 0}
        self._told_simulations = progress["simulations"]
        self._told_calls = max([progress["energy_calls"], *(s["energy_call"] for s in self.sheets.values())])
        self._told_falls = {point["call"] for point in known.get("curve", ())}
        self._by_call = {sheet["energy_call"]: number for number, sheet in self.sheets.items()}
        self._without: dict[str, int] = {}  # numbers of told crystals without an energy, by form

    async def round(self, state: State, found: Sequence[SearchSample]) -> None:
        """Tell of a round: the curve and new crystals, in the order in which they were written."""
        new = [one for one in found if one.call is not None]
        for one in new:
            energy = one.crystal.energy
            if energy is not None and (self._best is None or energy < self._best):
                self._best = energy
                if one.call in self._told_falls:
                    continue
                self._job.tell("curve", {"step": one.simulation + 1, "energy": energy, "call": one.call})
        for one in new:
            if (one.call or 0) <= self._told_calls:
                if one.crystal.energy is None and one.call in self._by_call:
                    self._without[one.form] = self._by_call[one.call]
            elif (number := self._without.pop(one.form, None)) is not None:
                self._mend(number, one)
            elif self._wanted(one):
                await self._card(one)
        self._state = state
        if state.simulations <= self._told_simulations:
            return
        self._rank()
        self._job.tell(
            "progress",
            {
                "simulations": state.simulations,
                "energy_calls": state.calls,
                "texts": state.texts,
                "valid": state.valid,
                "energy": state.best,
            },
        )

    def short(self) -> str:
        """Why a search that met no bound of its own has ended; "" for one that did."""
        state, ask = self._state, self._ask
        done = 0 if state is None else state.simulations
        calls = 0 if state is None else state.calls
        if done >= ask.simulations or (ask.energy_calls is not None and calls >= ask.energy_calls):
            return ""
        seconds = SHARE * self._runner.limits.job_seconds
        return f"{done} of {ask.simulations} simulations in {seconds:g} s, the time for a search here"

    def _wanted(self, one: SearchSample) -> bool:
        """Whether a crystal is among the first n, or the n lowest so far."""
        most = self._ask.n or self._runner.limits.samples
        if len(self.sheets) < most:
            return True
        energy = one.crystal.energy
        lowest = sorted(s["energy"] for s in self.sheets.values() if s["energy"] is not None)
        return energy is not None and (len(lowest) < most or energy < lowest[most - 1])

    async def _card(self, one: SearchSample) -> None:
        crystal, sample = one.crystal, one.sample
        if sample is None:  # of a log, and there is none
            return
        number = len(self.sheets)
        sheet = await self._runner.sheet(number, sample, crystal, judged=True)
        sheet |= _weighed(one)
        if crystal.energy is None:
            sheet["energy_reason"] = crystal.energy_reason
        self.sheets[number] = sheet
        self._job.tell("crystal", sheet)
        self._runner.metrics.count("crystals", "Crystals written and judged.", kind="search")

    def _mend(self, number: int, one: SearchSample) -> None:
        """A crystal that had no energy before an interruption was asked about again."""
        update = {**_weighed(one), "number": number, "energy_reason": one.crystal.energy_reason}
        self.sheets[number] |= update
        self._job.tell("update", [update])

    def _rank(self) -> None:
        """The lowest first; only what has changed is told."""
        with_energy = [sheet for sheet in self.sheets.values() if sheet["energy"] is not None]
        with_energy.sort(key=lambda sheet: (sheet["energy"], sheet["number"]))
        changed = []
        for rank, sheet in enumerate(with_energy, start=1):
            if sheet.get("rank") != rank:
                sheet["rank"] = rank
                changed.append({"number": sheet["number"], "rank": rank})
        if changed:
            self._job.tell("update", changed)


def _weighed(one: SearchSample) -> dict[str, Any]:
    """The energy of a crystal, and when it was asked."""
    return {
        "energy": one.crystal.energy,
        "simulation": one.simulation + 1,
        "energy_call": one.call,
        "move": one.move,
    }
