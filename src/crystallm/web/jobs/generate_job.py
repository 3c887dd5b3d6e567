"""Generation as a job: sample, summarise, compute energies, rank."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from crystallm.energy.relaxation import RelaxOptions
from crystallm.generation.analogues import AnalogueGenerator, CombinedGenerator, resolve_source
from crystallm.generation.choices import spread
from crystallm.generation.generator import Generator
from crystallm.generation.request import SamplingOptions
from crystallm.references.load import load_library
from crystallm.references.options import ReferenceOptions
from crystallm.web.jobs.ranking import rank
from crystallm.web.request_check import generation_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from crystallm.crystals.crystal import Crystal
    from crystallm.sampling.sequence import Sample, SequenceRequest
    from crystallm.web.jobs.job import Job
    from crystallm.web.jobs.services import JobServices
    from crystallm.web.schemas import GenerateRequest

    Draft = tuple[SequenceRequest, Callable[[Sample], Crystal]]


async def run(services: JobServices, job: Job, request: GenerateRequest) -> None:
    """Generate the crystals of a request that the job does not have yet."""
    await GenerateJob(services, job, request).run()


class Plan(NamedTuple):
    """What a job generates.

    Attributes:
        note: how the request is interpreted.
        made: crystals that are made of known ones; they come first.
        drafts: for each sampled crystal its sequence and the way from the sample to the crystal.
    """

    note: str
    made: list[Crystal]
    drafts: list[Draft]


def plan(services: JobServices, request: GenerateRequest) -> Plan:
    """Return what a request generates."""
    model = services.model(request.model)
    sampling = {name: getattr(request, name) for name in ("temperature", "top_k", "top_p", "guidance")}
    options = SamplingOptions.build(sampling | {"model": model.name, "seed": request.seed or 0})
    requests, max_atoms = [generation_request(request)], services.limits.max_cell_atoms
    known = resolve_source(ReferenceOptions(crystals_from=request.crystals_from), model.name)
    if known.crystals_from == "references":
        analogues = AnalogueGenerator(load_library(), requests, options, max_atoms=max_atoms)
        return Plan(analogues.note(0), next(analogues.generate([0])), [])
    if known.crystals_from == "network" or request.formula is None:
        generator = Generator(model, requests, options, max_atoms=max_atoms)
        return Plan(_note(generator, request.n), [], generator.sequence_requests(0))
    both = CombinedGenerator(model, load_library(), requests, options, max_atoms=max_atoms)
    made, sampler = both.split(0)
    return Plan(_note(both, request.n), made, [] if sampler is None else sampler.sequence_requests(0))


def _note(generator: Generator | CombinedGenerator, n: int) -> str:
    """Return how a request is interpreted, and whether its samples are few for what is tried."""
    return "; ".join(filter(None, (generator.note(0), spread(generator.choices(0), n))))


class GenerateJob:
    """A generation that is running."""

    def __init__(self, services: JobServices, job: Job, request: GenerateRequest) -> None:
        self._services, self._job, self._request = services, job, request
        self._summaries: dict[int, dict[str, Any]] = {}
        self._lowest: float | None = None
        self._ranking: asyncio.Task[None] | None = None
        self._n_ranked = 0

    async def run(self) -> None:
        """Generate what is missing."""
        note, made, drafts = await asyncio.to_thread(plan, self._services, self._request)
        earlier = await asyncio.to_thread(self._job.results)
        self._summaries = {summary["number"]: summary for summary in earlier["crystals"]}
        self._lowest = min((point["energy"] for point in earlier.get("curve", ())), default=None)
        n_made = len(made)
        missing = [i for i in range(len(drafts)) if n_made + i not in self._summaries]
        self._job.set_state("running", note=note, total=n_made + len(drafts))
        model = self._services.model(self._request.model).name
        async with asyncio.TaskGroup() as group:
            for summary in self._summaries.values():
                if self._request.energy is not None and "energy" not in summary:  # interrupted before it
                    group.create_task(self._add_energy(summary, len(self._summaries)))
            for number, crystal in enumerate(made):
                if number not in self._summaries:
                    group.create_task(self._finish(number, None, crystal, group))
            sequences = [drafts[i][0] for i in missing]
            async for index, sample in self._services.sample(model, sequences):
                i = missing[index]
                crystal = drafts[i][1](sample)
                group.create_task(self._finish(n_made + i, sample, crystal, group))
        await self._rank(self._summaries)

    async def _finish(
        self, number: int, sample: Sample | None, crystal: Crystal, group: asyncio.TaskGroup
    ) -> None:
        """Report a crystal and its energy."""
        summary = await self._services.summary(number, sample, crystal)
        self._job.add_event("crystal", summary)
        self._services.metrics.crystals.labels("generate").inc()
        self._summaries[number] = summary
        n = len(self._summaries)
        if self._request.energy is not None:
            await self._add_energy(summary, n)
        n = len(self._summaries)
        is_ranking = self._ranking is not None and not self._ranking.done()
        if not is_ranking and max(4, 2 * self._n_ranked) <= n < self._request.n:  # again at twice as many
            self._n_ranked = n
            self._ranking = group.create_task(self._rank(dict(self._summaries)))

    async def _rank(self, summaries: dict[int, dict[str, Any]]) -> None:
        await rank(self._services, self._job, summaries, by_energy=self._request.energy is not None)

    async def _add_energy(self, summary: dict[str, Any], n_crystals: int) -> None:
        """Compute the energy of the n-th crystal, relaxed if requested, and report it."""
        model = str(self._request.energy)
        update: dict[str, Any] = {"number": summary["number"], "energy": None}
        if "structure" not in summary:
            update["energy_reason"] = "no crystal"
        elif not (summary.get("checks") or {}).get("sensible", False):
            update["energy_reason"] = "no sensible cell"
        elif self._request.relax:
            options = RelaxOptions(keep_symmetry=True)
            update |= await self._services.relax(summary["structure"], model, options)
        else:
            update |= await self._services.energy(summary["structure"], model)
        summary |= update
        self._job.add_event("update", [update])
        energy = update["energy"]
        if (
            energy is not None
            and summary.get("plausible")
            and (self._lowest is None or energy < self._lowest)
        ):
            self._lowest = energy
            self._job.add_event("curve", {"step": n_crystals, "energy": energy})
