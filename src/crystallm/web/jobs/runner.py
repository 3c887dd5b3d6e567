"""How each kind of job is done: texts by the engine, judgements and energies in processes that can be lost.

One runner serves all jobs of a server. A job that was interrupted is done like any other, but for what it has
told already. It says what it finds by events:

    crystal   a sheet (see `desk`) with the crystal's `number`, as soon as it is judged
    update    further facts on crystals by number: energies, relaxed cells, clusters and ranks
    curve     {"step", "energy"}: the lowest energy so far
    progress  how far a search is

Refuses to know how events travel, and who may ask.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from typing import TYPE_CHECKING, Any

from crystallm.crystals import ranking
from crystallm.energy import calculations, relaxation, worker
from crystallm.energy import protocol as energies
from crystallm.errors import CrystallmError, InputError
from crystallm.execution import pool as execution_pool
from crystallm.execution.tasks import TaskError, WorkerStartError
from crystallm.generation.generator import Generator
from crystallm.generation.interpretation import interpret
from crystallm.generation.request import Request, SamplingOptions, with_default_z
from crystallm.models.model import fingerprint
from crystallm.options import validated
from crystallm.version import __version__
from crystallm.web import formula_check, schemas
from crystallm.web.formula_check import FieldError
from crystallm.web.jobs import crystal_tasks, search_job
from crystallm.web.jobs.text_engine import Engine, SamplingJob

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from crystallm.crystals.crystal import Crystal
    from crystallm.models.model import Model
    from crystallm.sampling.sequence import Sample, SequenceRequest
    from crystallm.web.jobs.job import Job
    from crystallm.web.metrics import Metrics
    from crystallm.web.rate_limits import Limits

    Drafts = list[tuple[SequenceRequest, Callable[[Sample], Crystal]]]


JUDGE_SECONDS, PATTERN_SECONDS = 60.0, 60.0

ENERGY_SECONDS = 60.0

FOLD_SECONDS = 60.0


class JobRunner:
    """Does jobs.

    Args:
        models: loaded, by name; the first one is taken where none is named.
        energies: names of the energy models that are offered.
        limits: of the server.
        metrics: counters.
        judges: processes that judge.
        weighers: processes with an energy model.
        batch_size: texts that an engine, or a search, writes at a time.

    Attributes:
        searchers: threads in which searches are done.
        on_broken: called, by another thread, when no text can be written any more.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        energies: Sequence[str],
        limits: Limits,
        metrics: Metrics,
        *,
        judges: int | None = None,
        weighers: int = 1,
        batch_size: int = 32,
    ) -> None:
        self.models = dict(models)
        self.energies = list(energies)
        self.limits = limits
        self.batch_size = batch_size
        self.on_broken: Callable[[], None] = lambda: None
        self.engines = {
            name: Engine(model.network, batch_size, self._broke) for name, model in models.items()
        }
        self.searchers = search_job.SearchThreads(limits.searches)
        self.metrics = metrics
        n_judges = judges or max(1, min(8, (os.cpu_count() or 1) // 2))
        self._n_judges, self._n_weighers = n_judges, weighers
        self._judges = execution_pool.Pool(n_judges, seconds=JUDGE_SECONDS)
        self._weighers = execution_pool.Pool(weighers, seconds=ENERGY_SECONDS, memory_gb=worker.MEMORY_GB)
        self._folders = execution_pool.Pool(1, seconds=2 * FOLD_SECONDS)

    def open(self) -> None:
        """Begin to write."""
        for engine in self.engines.values():
            engine.start()

    def close(self) -> None:
        """End the engines and all processes."""
        for pool in (self._judges, self._weighers, self._folders):
            pool.kill()
        self.searchers.close()
        for engine in self.engines.values():
            engine.close()

    def _broke(self) -> None:
        self.on_broken()

    @property
    def broken(self) -> str:
        """Why no text can be written any more; "" if it can."""
        return next((engine.broken for engine in self.engines.values() if engine.broken), "")

    async def run(self, job: Job) -> None:
        """Do a job of any kind."""
        ask = schemas.of_record(job.ask)
        doing: dict[type[Any], Callable[[Job, Any], Coroutine[Any, Any, None]]] = {
            schemas.Generate: self._generate,
            schemas.Search: self._search,
            schemas.Relax: self._relax,
            schemas.Evaluate: self._evaluate,
        }
        await doing[type(ask)](job, ask)

    # -- what can be said of an ask before it becomes a job --------------------------------------------------

    def checked(self, ask: schemas.AnyAsk) -> dict[str, Any]:
        """An ask as it is kept, what was left open filled in.

        Raises:
            FieldError: it cannot be done, and which field says so.
        """
        record = ask.model_dump()
        if isinstance(ask, schemas.Relax | schemas.Evaluate):
            if len(ask.structures) > self.limits.structures:
                raise FieldError(
                    "structures",
                    f"{len(ask.structures)} structures: at most {self.limits.structures} a job",
                )
        else:
            self._check_writing(ask)
            record["model"] = ask.model or next(iter(self.models))
            record["z"] = with_default_z(Request(formula=ask.formula, z=ask.z)).z
            record["n"] = ask.n or self.limits.samples
            if ask.seed is None:
                record["seed"] = secrets.randbelow(schemas.LARGEST_SEED + 1)
        if isinstance(ask, schemas.Search):
            self._check_search(ask)
        needs_energy = isinstance(ask, schemas.Relax | schemas.Search)
        if not isinstance(ask, schemas.Evaluate):
            record["energy"] = self._checked_energy(ask.energy, needed=needs_energy)
        if isinstance(ask, schemas.Generate) and ask.relax and ask.energy is None:
            raise FieldError("relax", "relaxation needs an energy model: choose one")
        return record

    def _check_writing(self, ask: schemas.Generate | schemas.Search) -> None:
        if ask.n is not None and ask.n > self.limits.samples:
            raise FieldError("n", f"n = {ask.n}: at most {self.limits.samples} crystals a job")
        if ask.model is not None and ask.model not in self.models:
            raise FieldError("model", f"no model {ask.model!r}: there are {', '.join(self.models)}")
        if isinstance(ask, schemas.Generate) and (ask.formula is None or ask.elements is not None):
            self._check_system(ask)
        elif ask.formula is not None:
            formula_check.read(ask.formula, ask.z, ask.space_group, self.limits.atoms)

    def _check_system(self, ask: schemas.Generate) -> None:
        """Look whether an ask without a formula can be understood."""
        if ask.elements is None and ask.space_group is None:
            raise FieldError("formula", "write a formula, such as TiO2, or elements, such as Li-Fe-O")
        try:
            interpret(_request(ask), most_atoms=self.limits.atoms)
        except InputError as error:
            field = "space_group" if ask.elements is None else "elements"
            raise FieldError(field, str(error)) from None

    def _check_search(self, ask: schemas.Search) -> None:
        if ask.simulations > self.limits.simulations:
            raise FieldError(
                "simulations", f"simulations = {ask.simulations}: at most {self.limits.simulations}"
            )

    def _checked_energy(self, name: str | None, *, needed: bool) -> str | None:
        if name is None and not needed:
            return None
        if not self.energies:
            raise FieldError("energy", "this server offers no energy model")
        if name is None:
            return self.energies[0]
        if name not in self.energies:
            raise FieldError("energy", f"no energy model {name!r}: there are {', '.join(self.energies)}")
        return name

    def origin(self, record: Mapping[str, Any]) -> str:
        """What else decides the crystals of an ask: the version, and the weights that write them."""
        if "model" not in record:
            return __version__
        model = self.models.get(record["model"])
        return f"{__version__} {'' if model is None else fingerprint(model)}"

    # -- generate --------------------------------------------------------------------------------------------

    async def _generate(self, job: Job, ask: schemas.Generate) -> None:
        model = self.models[ask.model or next(iter(self.models))]
        note, drafts = await asyncio.to_thread(self._planned, model, ask)
        known = await asyncio.to_thread(job.known)
        found: dict[int, dict[str, Any]] = {one["number"]: one for one in known["crystals"]}
        left = [number for number in range(len(drafts)) if number not in found]
        best: list[float] = [point["energy"] for point in known.get("curve", ())]
        job.enter("running", note=note, total=ask.n)
        folded = 0
        folding: asyncio.Task[None] | None = None
        turn = asyncio.Semaphore(self._n_weighers)
        async with asyncio.TaskGroup() as group:
            for sheet in found.values():
                if ask.energy is not None and "energy" not in sheet:  # interrupted before it was known
                    group.create_task(self._weigh(job, sheet, ask, best, len(found), turn=turn))
            async for place, sample in self._written(model, [drafts[number] for number in left]):
                number = left[place]
                crystal = drafts[number][1](sample)

                async def finish(
                    number: int = number, sample: Sample = sample, crystal: Crystal = crystal
                ) -> None:
                    nonlocal folding, folded
                    sheet = await self.sheet(number, sample, crystal)
                    job.tell("crystal", sheet)
                    self.metrics.count("crystals", "Crystals written and judged.", kind="generate")
                    found[number] = sheet
                    if ask.energy is not None:
                        await self._weigh(job, sheet, ask, best, len(found), turn=turn)
                    # Equal ones are counted again whenever there are twice as many.
                    if (
                        (folding is None or folding.done())
                        and len(found) >= max(4, 2 * folded)
                        and len(found) < ask.n
                    ):
                        folded = len(found)
                        folding = group.create_task(self.rank(job, dict(found), ask))

                group.create_task(finish())
        await self.rank(job, found, ask)

    def _planned(self, model: Model, ask: schemas.Generate) -> tuple[str, Drafts]:
        """How the request was read, and what is to be written for it."""
        settings = validated(
            SamplingOptions,
            {
                "model": model.name,
                "temperature": ask.temperature,
                "top_k": ask.top_k,
                "top_p": ask.top_p,
                "seed": ask.seed or 0,
            },
        )
        generator = Generator(model, [_request(ask)], settings, most_atoms=self.limits.atoms)
        return generator.note(0), generator.drafts(0)

    async def _written(self, model: Model, drafts: Drafts) -> Any:
        """(Place in the list, sample) of drafts, as the engine finishes them."""
        if not drafts:
            return
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[tuple[int, Sample] | str] = asyncio.Queue()

        def tell(item: tuple[int, Sample] | str) -> None:
            loop.call_soon_threadsafe(arrived.put_nowait, item)

        ticket = SamplingJob(
            [draft for draft, _ in drafts], lambda number, sample: tell((number, sample)), tell
        )
        engine = self.engines[model.name]
        engine.put(ticket)
        try:
            for _ in drafts:
                item = await arrived.get()
                if isinstance(item, str):
                    raise CrystallmError(f"the network failed at this: {item}")
                yield item
        finally:
            engine.drop(ticket)

    async def sheet(
        self, number: int, sample: Sample, crystal: Crystal, *, judged: bool = False
    ) -> dict[str, Any]:
        """The sheet of a crystal.

        Args:
            number: of its card.
            sample: as it was written.
            crystal: what that is.
            judged: whether its verdict is known already.
        """
        task = {
            "language": crystal.language.name,
            "ids": list(crystal.ids),
            "n_asked": crystal.n_prompt,
            "n_prompt": sample.n_prompt,
            "forced": [int(one) for one in sample.forced],
            "log_probs": list(sample.log_probs),
            "log_likelihood": crystal.log_likelihood,
            "ended": crystal.ended,
        }
        source = crystal.source
        head: dict[str, Any] = {"number": number}
        known: dict[str, Any]
        verdict = crystal_tasks.validity_summary(crystal.validity) if judged else {}
        if source is not None:
            head |= {
                "seed": source.seed,
                "index": source.index,
                "model": source.model,
                "asked": source.request,
            }
        try:
            known = await self._asked(
                self._judges,
                "crystallm.web.jobs.crystal_tasks:crystal_summary",
                task | {"judge": not judged},
                JUDGE_SECONDS,
            )
            return head | known | verdict
        except TaskError as error:
            reason = f"not judged: {error.reason}"
        if judged:
            return head | {"broken": reason.replace("judged", "read")} | verdict
        try:
            known = await self._asked(
                self._judges,
                "crystallm.web.jobs.crystal_tasks:crystal_summary",
                task | {"judge": False},
                JUDGE_SECONDS,
            )
        except TaskError as error:
            known = {"broken": f"not read: {error.reason}"}
        return head | known | {"valid": False, "reasons": [reason]}

    async def _weigh(
        self,
        job: Job,
        sheet: dict[str, Any],
        ask: schemas.Generate,
        best: list[float],
        step: int,
        *,
        turn: asyncio.Semaphore,
    ) -> None:
        """Find the energy of a crystal, relaxed if that is wished.

        Args:
            job: that is told.
            sheet: of the crystal.
            ask: what was asked.
            best: energies that were the lowest so far, the last one now.
            step: crystals that were there when it came.
            turn: of the crystals of the job, so that no more of them stand in the line of the processes than
                there are processes: those of other jobs come between them.
        """
        update: dict[str, Any] = {"number": sheet["number"], "energy": None}
        checks = sheet.get("checks") or {}
        if "structure" not in sheet:
            update["energy_reason"] = "no crystal"
        elif not checks.get("sensible", False):
            update["energy_reason"] = "no sensible cell"
        elif ask.relax:
            options = relaxation.RelaxOptions(keep_symmetry=True)
            async with turn:
                update |= await self._relaxed(sheet["structure"], str(ask.energy), options)
        else:
            async with turn:
                update |= await self._energy(sheet["structure"], str(ask.energy))
        sheet |= update
        job.tell("update", [update])
        energy = update["energy"]
        if energy is not None and sheet.get("valid") and (not best or energy < best[-1]):
            best.append(energy)
            job.tell("curve", {"step": step, "energy": energy})

    async def _energy(self, structure: dict[str, Any], model: str) -> dict[str, Any]:
        task = {"structures": [structure], "bound": energies.BOUND}
        name = worker.function_of("scoring", model, "cpu")
        try:
            (answer,) = await self._asked(self._weighers, name, task, ENERGY_SECONDS)
        except TaskError as error:
            return {"energy": None, "energy_reason": error.reason}
        if "lost" in answer:
            return {"energy": None, "energy_reason": answer["lost"]}
        return {"energy": answer["energy"]}

    async def _relaxed(
        self, structure: dict[str, Any], model: str, options: relaxation.RelaxOptions
    ) -> dict[str, Any]:
        task = {"structure": structure, "options": options.model_dump(), "bound": energies.BOUND}
        name = worker.function_of("relaxing", model, "cpu")
        try:
            record = await self._asked(self._weighers, name, task, calculations.RELAX_SECONDS)
            if "lost" in record:
                return {"energy": None, "energy_reason": record["lost"]}
            sheet = await self._asked(
                self._judges, "crystallm.web.jobs.crystal_tasks:relaxed", {"record": record}, JUDGE_SECONDS
            )
        except TaskError as error:
            return {"energy": None, "energy_reason": error.reason}
        return {"energy": record["energy"], "relaxed": sheet}

    async def rank(
        self, job: Job, found: dict[int, dict[str, Any]], ask: schemas.Generate | schemas.Search
    ) -> None:
        """Count equal crystals and put the best first."""
        numbers = sorted(found)
        there = [number for number in numbers if "structure" in found[number]]
        clusters: dict[int, int | None] = dict.fromkeys(numbers)
        buckets: dict[str, list[int]] = {}
        for number in there:
            buckets.setdefault(found[number]["reduced_formula"], []).append(number)
        first = 0
        for members in buckets.values():
            for number, cluster in zip(members, await self._folded(found, members), strict=True):
                clusters[number] = first + cluster
            first += len(members)
        listed = [clusters[number] for number in numbers]
        ranks = ranking.rank_samples(
            listed,
            [found[n].get("log_likelihood") or float("nan") for n in numbers],
            [bool(found[n].get("valid")) for n in numbers],
            "energy" if ask.energy is not None else "agreement",
            [found[n].get("energy") for n in numbers],
            volumes=[(found[n].get("relaxed") or found[n]).get("volume_per_atom") for n in numbers],
        )
        updates = [
            {
                "number": number,
                "cluster": cluster,
                "cluster_size": None if cluster is None else listed.count(cluster),
                "rank": rank,
            }
            for number, cluster, rank in zip(numbers, listed, ranks, strict=True)
        ]
        job.tell("update", updates)

    async def _folded(self, found: dict[int, dict[str, Any]], members: list[int]) -> list[int]:
        """Numbers of the clusters of crystals of one formula."""
        records = [found[number]["structure"] for number in members]
        distinct: dict[str, int] = {}
        same = [distinct.setdefault(repr(record), len(distinct)) for record in records]
        if len(distinct) == 1:
            return same
        packed = [records[same.index(k)] for k in range(len(distinct))]
        task = {"structures": packed, "seconds": FOLD_SECONDS}
        try:
            numbers = await self._asked(
                self._folders, "crystallm.structures.folding:fold_record", task, 2 * FOLD_SECONDS
            )
        except TaskError:
            return same  # identical ones alone
        return [numbers[k] for k in same]

    # -- the other kinds -------------------------------------------------------------------------------------

    async def _search(self, job: Job, ask: schemas.Search) -> None:
        await search_job.run(self, job, ask)

    async def _evaluate(self, job: Job, ask: schemas.Evaluate) -> None:
        known = await asyncio.to_thread(job.known)
        job.enter("running", total=len(ask.structures))
        told = {sheet["number"] for sheet in known["crystals"]}
        judging = asyncio.Semaphore(max(2, self._n_judges))

        async def one(number: int, text: str) -> None:
            task = {"text": text, "what": ask.judge}
            try:
                async with judging:
                    sheet = await self._asked(
                        self._judges, "crystallm.web.jobs.crystal_tasks:judged", task, JUDGE_SECONDS
                    )
            except TaskError as error:
                sheet = {"valid": False, "reasons": [f"not judged: {error.reason}"], "broken": error.reason}
            job.tell("crystal", {"number": number, **sheet})
            self.metrics.count("crystals", "Crystals written and judged.", kind="evaluate")

        async with asyncio.TaskGroup() as group:
            for number, text in enumerate(ask.structures):
                if number not in told:
                    group.create_task(one(number, text))

    async def _relax(self, job: Job, ask: schemas.Relax) -> None:
        known = await asyncio.to_thread(job.known)
        job.enter("running", total=len(ask.structures))
        told = {sheet["number"]: sheet for sheet in known["crystals"]}
        options = relaxation.RelaxOptions(steps=ask.steps, fmax=ask.fmax, keep_symmetry=ask.keep_symmetry)
        judging = asyncio.Semaphore(max(2, self._n_judges))
        turn = asyncio.Semaphore(self._n_weighers)

        async def read(number: int, text: str) -> dict[str, Any]:
            try:
                async with judging:
                    sheet: dict[str, Any] = await self._asked(
                        self._judges,
                        "crystallm.web.jobs.crystal_tasks:uploaded_summary",
                        {"text": text},
                        JUDGE_SECONDS,
                    )
            except TaskError as error:
                sheet = {"broken": error.reason}
            job.tell("crystal", {"number": number, **sheet})
            return sheet

        async def one(number: int, text: str) -> None:
            sheet = told.get(number) or await read(number, text)
            if "structure" in sheet:
                async with turn:
                    update = await self._relaxed(sheet["structure"], str(ask.energy), options)
            else:
                update = {"energy": None, "energy_reason": "no crystal"}
            job.tell("update", [{"number": number, **update}])
            self.metrics.count("crystals", "Crystals written and judged.", kind="relax")

        async with asyncio.TaskGroup() as group:
            for number, text in enumerate(ask.structures):
                if "energy" not in told.get(number, {}):
                    group.create_task(one(number, text))

    # -- what is asked about one crystal, later --------------------------------------------------------------

    async def pattern(self, structure: dict[str, Any]) -> dict[str, Any]:
        """The powder pattern of a packed structure.

        Raises:
            LostError: it takes too long.
        """
        found: dict[str, Any] = await self._asked(
            self._judges,
            "crystallm.web.jobs.crystal_tasks:pattern",
            {"structure": structure},
            PATTERN_SECONDS,
        )
        return found

    async def files(self, sheets: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
        """Crystals in all forms.

        Raises:
            LostError: it takes too long.
        """
        names = ("cif", "structure", "formula")
        packed = [
            {name: sheet.get(name) for name in names} | {"energy": _own_energy(sheet)} for sheet in sheets
        ]
        found: list[dict[str, str]] = await self._asked(
            self._judges, "crystallm.web.jobs.crystal_tasks:files", {"sheets": packed}, PATTERN_SECONDS
        )
        return found

    @staticmethod
    async def _asked(pool: execution_pool.Pool, name: str, task: Any, seconds: float) -> Any:
        """A function's value in a process of a pool.

        Raises:
            LostError: there is none.
            CrystallmError: the process cannot even start.
        """
        pool.seconds = seconds  # read as the task is submitted: all of this runs on one event loop
        try:
            return await asyncio.wrap_future(pool.submit(name, task))
        except WorkerStartError as error:
            raise CrystallmError(str(error)) from None


def _request(ask: schemas.Generate) -> Request:
    """What an ask says of what is to be written."""
    names = ("formula", "elements", "allow_fewer_elements", "z", "n")
    group = None if ask.space_group is None else str(ask.space_group)
    return validated(Request, {name: getattr(ask, name) for name in names} | {"space_group": group})


def _own_energy(sheet: Mapping[str, Any]) -> float | None:
    """The energy, eV/atom, of the structure that a sheet holds: that of a relaxed one is another's."""
    relaxed = sheet.get("relaxed") or {}
    energy: float | None = relaxed.get("energy_before", sheet.get("energy"))
    return energy
