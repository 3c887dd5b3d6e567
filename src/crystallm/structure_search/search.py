"""Search for crystals of low energy: write, judge, ask for energies, learn where to write next.

    round       a policy (see `search_policies`) proposes where to write; the texts are written together,
                judged, and the energies of those that are valid are asked; the policy learns them
    equal       crystals with one canonical description in the orbits language: their energy is asked once
    a call      is a crystal whose energy was asked, whatever came of it
    log         a round is in the log before the next begins; a search that was cut off is built again from it

A search depends on the request, options, settings and seed alone, in float32 and as long as the energy model
gives the same energies. The bounds count too: the last round is cut short so that none is passed, and a
search that goes on under higher ones has learned from that, other than one which had them from the start.
When a search goes on, what had no energy is asked about again where it is written again, since the model may
have been mended. Knows how the parts fit together; draws no pictures and prints nothing.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError
from crystallm.generation.generator import Generator
from crystallm.storage.journal import Journal
from crystallm.structure_search.elite_policy import ElitePolicy
from crystallm.structure_search.policy import Outcome, Sampling, SearchPrompt
from crystallm.structure_search.tree_policy import TreePolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from crystallm.crystals.crystal import Crystal
    from crystallm.generation.request import Request, SamplingOptions
    from crystallm.models.model import Model
    from crystallm.sampling.sample import Writer
    from crystallm.sampling.sequence import Sample
    from crystallm.structure_search.options import SearchOptions
    from crystallm.structure_search.policy import Policy, Proposal
    from crystallm.structure_search.prefixes import PrefixExplorer


def policy(
    options: SearchOptions,
    seed: int,
    roots: Sequence[SearchPrompt],
    beginnings: PrefixExplorer,
    writer: Writer,
) -> Policy:
    """The policy that the options name."""
    if options.method == "tree":
        return TreePolicy(options, seed, roots, beginnings, writer)
    if options.method == "elites":
        return ElitePolicy(options, seed, roots, beginnings)
    return Sampling(seed, roots)


LOG = logging.getLogger(__name__)

GIVE_UP = 10
"""Crystals in a row without an energy behind which the energy model is given up: at a minute each, a model
that sleeps has then slept for ten."""

IDLE = 500
"""Simulations in a row without a new crystal behind which a search ends that is bounded by energy calls or
minutes alone."""


@dataclass
class SearchSample:
    """A text that a search has written.

    Attributes:
        crystal: with its verdict and energy.
        simulation: in which it was written, from 0.
        seconds: since the search began, when its round was done.
        move: how its beginning was found, see `search_policies.Proposal`.
        call: number of the energy call that was made for it, from 1; None for none.
        equals: place in the list of the first crystal that is equal; None for none.
        sample: its text as it was written; None for one that a log gave back without it.
    """

    crystal: Crystal
    simulation: int
    seconds: float
    move: str
    call: int | None = None
    equals: int | None = None
    sample: Sample | None = None

    @cached_property
    def form(self) -> str:
        """The same for equal crystals: the canonical description in the orbits language."""
        from crystallm.language import get_language

        language = get_language("orbits")
        try:
            return language.text(language.encode(self.crystal.structure))
        except CrystallmError:
            return self.crystal.text  # near a higher symmetry, or beyond what that language can write


@dataclass(frozen=True)
class State:
    """How far a search is.

    Attributes:
        simulations: done.
        calls: crystals whose energy was asked.
        texts: written.
        valid: of these.
        best: lowest energy, eV per atom; None so far.
        seconds: since the search began, earlier runs of it counted.
    """

    simulations: int
    calls: int
    texts: int
    valid: int
    best: float | None
    seconds: float


@dataclass
class Search:
    """One search.

    Args:
        model: loaded.
        request: what to search for; its n is not asked.
        options: how.
        settings: how to sample.
        path: of the log; None for none.
        workers: processes with the energy model, which runs on the device of the settings.
        most_atoms: of the cells that are tried where Z is to be chosen; None for as many as suit.
        log_samples: let the log tell how each text was written, token by token, which makes it several times
            as long; so that `Found.sample` is there too when the search goes on.

    Attributes:
        found: all that was written.
        stopped: why it ended before its bounds; "" for no reason, or as long as it goes on.

    Raises:
        InputError: a request that cannot be understood or written.
        CrystallmError: the log cannot be read.
    """

    model: Model
    request: Request
    options: SearchOptions
    settings: SamplingOptions
    path: Path | None = None
    workers: int = 1
    most_atoms: int | None = None
    log_samples: bool = False
    found: list[SearchSample] = field(default_factory=list)
    stopped: str = ""

    def __post_init__(self) -> None:
        from crystallm.sampling import sample as sampling_sample
        from crystallm.sampling import sequence
        from crystallm.structure_search.prefixes import PrefixExplorer

        request = self.request.model_copy(update={"n": 1})
        generator = Generator(self.model, [request], self.settings, most_atoms=self.most_atoms)
        language = self.model.language
        self._choices = generator.choices(0)
        self.note = generator.note(0)
        rules = generator.rules(0)
        settings = self.settings
        self._writer = sampling_sample.Writer(
            self.model.network,
            stop=sequence.Stop(language.end_ids, slide=language.slides),
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            batch_size=settings.batch_size,
            max_new_tokens=settings.max_new_tokens,
            rules=rules,
        )
        roots = [SearchPrompt(choice.prompt, choice.weight) for choice in self._choices]
        beginnings = PrefixExplorer(language, rules, self.model.config.context)
        self._policy: Policy = policy(self.options, settings.seed, roots, beginnings, self._writer)
        self._log = Journal(self.path)
        self._by_text: dict[tuple[int, ...], int] = {}  # places in `found`
        self._by_form: dict[str, int] = {}
        self._simulations = self._calls = self._n_valid = self._silent = self._idle = 0
        self._best: float | None = None
        self._before = 0.0  # seconds of earlier runs

    @property
    def state(self) -> State:
        """How far it is."""
        seconds = self.found[-1].seconds if self.found else 0.0
        return State(self._simulations, self._calls, len(self.found), self._n_valid, self._best, seconds)

    def run(
        self,
        *,
        on_round: Callable[[State, Sequence[SearchSample]], object] = lambda *_: None,
    ) -> list[SearchSample]:
        """Search until a bound is met.

        Args:
            on_round: called after each round, those of the log too, with what it has found.

        Returns:
            All that was written.

        Raises:
            CrystallmError: the energy model cannot be loaded; the log cannot be written, is of another
                search, or another process writes it.
        """
        with self._log.held():
            self._go_on(on_round)
        return self.found

    def _go_on(self, on_round: Callable[[State, Sequence[SearchSample]], object]) -> None:
        """Do what the log tells, and then more until a bound is met."""
        for lines in self._log.rounds:
            first = self._simulations
            proposals = self._policy.propose(first, lines[-1]["simulation"] + 1 - first)
            self._take(proposals, self._restored(proposals, lines), on_round)
        self._before = self.state.seconds
        self._silent = 0  # whoever starts it again may have mended the energy model
        self._by_text = {ids: place for ids, place in self._by_text.items() if not self._lost(place)}
        self._by_form = {form: place for form, place in self._by_form.items() if not self._lost(place)}
        started = time.monotonic()
        with _workers(self.workers):
            while not self._done(time.monotonic() - started):
                proposals = self._policy.propose(self._simulations, self._size())
                texts = self._written(proposals)
                self._weigh([one for some in texts for one in some])
                seconds = round(self._before + time.monotonic() - started, 3)
                for some in texts:
                    for one in some:
                        one.seconds = seconds
                self._log.append(
                    [
                        _record(one, proposal, number) | (_how(one) if self.log_samples else {})
                        for proposal, some in zip(proposals, texts, strict=True)
                        for number, one in enumerate(some)
                    ]
                )
                self._take(proposals, texts, on_round)

    # -- one round ---------------------------------------------------------------------------------------

    def _lost(self, place: int) -> bool:
        """Whether a crystal should have an energy and has none."""
        crystal = self.found[place].crystal
        return crystal.validity.valid and crystal.energy is None

    def _size(self) -> int:
        """Simulations of the next round: no bound is passed but by the roll-outs of the last one."""
        most = self.options.leaves
        if self.options.most is not None:
            most = min(most, self.options.most - self._simulations)
        if self.options.energy_calls is not None:
            left = self.options.energy_calls - self._calls
            most = min(most, max(1, left // self.options.rollouts))
        return most

    def _done(self, seconds: float) -> bool:
        options = self.options
        if self._silent >= GIVE_UP:
            reasons = [one.crystal.energy_reason for one in self.found if one.crystal.energy_reason]
            self.stopped = (
                f"{options.energy} gave no energy for the last {self._silent} crystals ({reasons[-1]})"
            )
        elif options.most is None and self._idle >= IDLE:
            self.stopped = f"the last {self._idle} simulations gave no new valid crystal"
        return bool(
            self.stopped
            or (options.most is not None and self._simulations >= options.most)
            or (options.energy_calls is not None and self._calls >= options.energy_calls)
            or (options.minutes is not None and self._before + seconds >= 60 * options.minutes)
        )

    def _written(self, proposals: Sequence[Proposal]) -> list[list[SearchSample]]:
        """Write and judge what is proposed."""
        from crystallm.crystals import annotation
        from crystallm.crystals.crystal import Crystal

        n = self.options.rollouts
        first = self._simulations
        asked = [(proposal, (first + i) * n + k) for i, proposal in enumerate(proposals) for k in range(n)]
        samples = self._writer.sample(
            [(proposal.ids, len(self._choices[proposal.root].prompt)) for proposal, _ in asked],
            seed=self.settings.seed,
            indices=[index for _, index in asked],
        )
        crystals = []
        written = list(samples)
        for (proposal, _), sample in zip(asked, written, strict=True):
            choice = self._choices[proposal.root]
            crystals.append(
                Crystal(
                    self.model.language,
                    sample.ids,
                    n_prompt=choice.n_asked,
                    log_likelihood=sample.log_likelihood + choice.log_likelihood,
                    ended=sample.ended,
                    source=self._source(proposal.root, sample.index),
                )
            )
        fresh = {crystal.ids: crystal for crystal in crystals if crystal.ids not in self._by_text}
        annotation.validate(list(fresh.values()))
        for crystal in crystals:
            known = self._by_text.get(crystal.ids)
            twin = fresh[crystal.ids] if known is None else self.found[known].crystal
            crystal.judge(twin.validity)
        found = [
            SearchSample(crystal, first + i // n, 0.0, asked[i][0].move, sample=sample)
            for i, (crystal, sample) in enumerate(zip(crystals, written, strict=True))
        ]
        return [found[k : k + n] for k in range(0, len(found), n)]

    def _source(self, root: int, index: int) -> Any:
        from crystallm.crystals.crystal import Source

        choice = self._choices[root]
        return Source(
            self.model.name,
            self.settings.seed,
            index,
            choice.note,
            z_weight=choice.z_weight,
            space_group_weight=choice.space_group_weight,
        )

    def _weigh(self, found: Sequence[SearchSample]) -> None:
        """Ask for the energies of valid crystals, each once; set `equals` of those that are known."""
        from crystallm.energy import calculations
        from crystallm.execution.devices import energy_device
        from crystallm.execution.tasks import Failure

        here = len(self.found)
        new: dict[str, int] = {}  # places as they will be in `found`
        asked: list[SearchSample] = []
        for place, one in enumerate(found, start=here):
            if not one.crystal.validity.valid:
                continue
            if (known := self._by_text.get(one.crystal.ids)) is not None:  # most that are equal are the same
                first = self.found[known].equals
                one.equals = known if first is None else first
                continue
            form = one.form
            one.equals = self._by_form.get(form, new.get(form))
            if one.equals is None:
                new[form] = place
                asked.append(one)
                one.call = self._calls + len(asked)
        device = energy_device(self.settings.device)
        energies = calculations.score(
            [one.crystal.structure for one in asked],
            self.options.energy,
            device=device,
            workers=self.workers,
            seconds=self.options.energy_seconds,
            group=1 if device == "cpu" else calculations.GROUP,
        )
        for one, energy in zip(asked, energies, strict=True):
            if isinstance(energy, Failure):
                one.crystal.energy_reason = energy.reason
            else:
                one.crystal.energy = energy
        for one in found:
            if one.equals is not None:
                twin = (self.found[one.equals] if one.equals < here else found[one.equals - here]).crystal
                one.crystal.energy, one.crystal.energy_reason = twin.energy, twin.energy_reason

    def _take(
        self,
        proposals: Sequence[Proposal],
        texts: Sequence[Sequence[SearchSample]],
        on_round: Callable[[State, Sequence[SearchSample]], object],
    ) -> None:
        """Count what a round gave, and let the policy learn it."""
        here = len(self.found)
        for some in texts:
            self._idle = 0 if any(one.call is not None for one in some) else self._idle + 1
            for one in some:
                self._count(one)
        self._simulations += len(proposals)
        self._policy.learn(proposals, [[_outcome(one) for one in some] for some in texts])
        on_round(self.state, self.found[here:])

    def _count(self, one: SearchSample) -> None:
        """Add a text to what was found."""
        crystal, place = one.crystal, len(self.found)
        self.found.append(one)
        self._by_text.setdefault(crystal.ids, place)
        self._n_valid += crystal.validity.valid
        if one.call is not None:
            self._by_text[crystal.ids] = self._by_form[one.form] = place
            self._calls += 1
            self._silent = 0 if crystal.energy is not None else self._silent + 1
        if crystal.energy is not None and (self._best is None or crystal.energy < self._best):
            self._best = crystal.energy

    def _restored(
        self, proposals: Sequence[Proposal], lines: Sequence[dict[str, Any]]
    ) -> list[list[SearchSample]]:
        """What a round of the log has found.

        Raises:
            CrystallmError: it does not follow from what was before.
        """
        from crystallm.crystals.crystal import Crystal
        from crystallm.validity.verdict import Validity

        n = self.options.rollouts
        found = []
        for i, line in enumerate(lines):
            proposal = proposals[i // n]
            if tuple(line["ids"][: len(proposal.ids)]) != proposal.ids or line["root"] != proposal.root:
                raise CrystallmError(
                    f"{str(self.path)!r}, simulation {line['simulation']}: it does not follow from this "
                    "model and seed; was it written on another machine? Choose another folder with --out"
                )
            choice = self._choices[proposal.root]
            crystal = Crystal(
                self.model.language,
                line["ids"],
                n_prompt=choice.n_asked,
                log_likelihood=line["log_likelihood"],
                ended=line["ended"],
                source=self._source(proposal.root, line["index"]),
            )
            verdict = line["verdict"]
            crystal.judge(Validity(**{**verdict, "reasons": tuple(verdict["reasons"])}))
            crystal.energy, crystal.energy_reason = line["energy"], line["energy_reason"]
            place = {name: line[name] for name in ("simulation", "seconds", "move", "call", "equals")}
            found.append(SearchSample(crystal, **place, sample=_sample(line)))
        return [found[k : k + n] for k in range(0, len(found), n)]


def _record(one: SearchSample, proposal: Proposal, rollout: int) -> dict[str, Any]:
    """A line of the log."""
    crystal = one.crystal
    source: Any = crystal.source
    return {
        "simulation": one.simulation,
        "rollout": rollout,
        "index": source.index,
        "seconds": one.seconds,
        "move": one.move,
        "root": proposal.root,
        "begun": len(proposal.ids),
        "call": one.call,
        "equals": one.equals,
        "energy": crystal.energy,
        "energy_reason": crystal.energy_reason,
        "verdict": asdict(crystal.validity),
        "log_likelihood": crystal.log_likelihood,
        "ended": crystal.ended,
        "ids": list(crystal.ids),
    }


def _how(one: SearchSample) -> dict[str, Any]:
    """What a line of the log has more, where it tells how its text was written."""
    sample: Any = one.sample
    return {
        "n_prompt": sample.n_prompt,
        "log_probs": list(sample.log_probs),
        "forced": [int(token) for token in sample.forced],
    }


def _sample(line: dict[str, Any]) -> Sample | None:
    """The text of a line of the log as it was written; None where the line does not tell."""
    from crystallm.sampling.sequence import Sample

    if "log_probs" not in line:
        return None
    told = {name: line[name] for name in ("index", "n_prompt", "ended")}
    runs: dict[str, Any] = {name: tuple(line[name]) for name in ("ids", "log_probs")}
    return Sample(number=0, **told, **runs, forced=tuple(map(bool, line["forced"])))


def _outcome(one: SearchSample) -> Outcome:
    crystal = one.crystal
    known = one.equals is not None
    return Outcome(crystal.ids, crystal.energy, invalid_reward(crystal), known)


def invalid_reward(crystal: Crystal) -> float:
    """The reward of a crystal without an energy: minus the share of bad bonds where nothing else is wrong."""
    verdict = crystal.validity
    sound = verdict.sensible and verdict.formula and verdict.multiplicity and verdict.space_group
    if verdict.valid or not sound or verdict.bond_score is None or math.isnan(verdict.bond_score):
        return -1.0
    return -(1.0 - verdict.bond_score)


@contextlib.contextmanager
def _workers(n: int) -> Iterator[None]:
    """Keep processes, to judge and with the energy model, which takes seconds to load; as the caller does."""
    from crystallm.execution import mapping

    if mapping.keeping():
        yield
        return
    with mapping.kept(n, end=True):
        yield
