"""Crystals of requests, made of known ones by replacing elements. Writes no files.

Has the members of `generation.generator.Generator` that runs use. A crystal is written in the language
`orbits`; its log-likelihood is the logarithm of the probability that it is right (see
`references.scorer`).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from crystallm.crystallography import formula as formulas
from crystallm.crystals import annotation
from crystallm.crystals.crystal import Crystal, Source
from crystallm.errors import InputError
from crystallm.execution.batching import FEWEST, grouped
from crystallm.generation.generator import (
    Generator,
    attempts_of,
    count_valid,
    interpret_all,
    until_nth_valid,
)
from crystallm.generation.interpretation import InterpretedRequest, interpret
from crystallm.language import get_language
from crystallm.models.load import list_models
from crystallm.models.model import Model
from crystallm.orbits import language
from crystallm.references.library import Library
from crystallm.references.load import load_library
from crystallm.references.lookup import Analogue, find_analogues
from crystallm.references.options import ReferenceOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Executor

    from crystallm.crystals.selection import SelectionOptions
    from crystallm.generation.choices import Choice
    from crystallm.generation.request import Request, SamplingOptions

NAME = "references"
"""Stands for the model in the source of a crystal."""


def analogues_of(
    library: Library, plan: InterpretedRequest, n: int, *, max_atoms: int | None = None
) -> list[Analogue]:
    """Return the n best candidates for a request with a formula; see `references.lookup.find_analogues`."""
    return find_analogues(
        library,
        formulas.parse(str(plan.request.formula)),
        n,
        space_group=None if plan.space_group is None else plan.space_group.number,
        z=None if plan.cell is None else plan.cell.z,
        max_atoms=max_atoms,
    )


class AnalogueGenerator:
    """Known crystals that give crystals for a list of requests.

    Args:
        settings: name the device of energies; all else is for networks.
        first: index of the first sample of each request.
        starts: number of the first sample of each request.
        max_atoms: largest number of atoms in a conventional cell; None: any.

    Raises:
        InputError: an impossible request, or one without a formula.
    """

    def __init__(
        self,
        library: Library,
        requests: Sequence[Request | InterpretedRequest],
        settings: SamplingOptions,
        *,
        first: Sequence[int] | None = None,
        starts: Sequence[int] | None = None,
        max_atoms: int | None = None,
        executor: Executor | None = None,
    ) -> None:
        self.library = library
        self.plans = [
            request if isinstance(request, InterpretedRequest) else interpret(request, max_atoms=max_atoms)
            for request in requests
        ]
        self._max_atoms = max_atoms
        for plan in self.plans:
            if plan.request.formula is None:
                raise InputError("known crystals are looked up by a formula: give one, such as TiO2")
        _reject_conditions(self.plans)
        self.settings = settings
        self.executor = executor
        self.starts = [0] * len(self.plans) if starts is None else list(starts)
        counts = [plan.request.n for plan in self.plans]
        self.first = [0, *itertools.accumulate(counts)][:-1] if first is None else list(first)

    def note(self, index: int) -> str:
        """Describe how a request was interpreted."""
        return f"{self.plans[index].note}, from {len(self.library):,} known crystals"

    def check(self) -> None:
        """Check that each request can be generated; all can."""

    def choices(self, index: int) -> list[Choice]:  # noqa: ARG002
        """Return what samples may be given: nothing is chosen."""
        return []

    def generate(
        self, indices: Sequence[int], *, progress: Callable[[int], None] | None = None
    ) -> Iterator[list[Crystal]]:
        """Return an iterator over the crystals of some requests, at most n of each, best first."""
        n_done = 0
        for index in indices:
            crystals = self._crystals(index, self.starts[index], self.plans[index].request.n)
            n_done += self.plans[index].request.n
            if progress is not None:
                progress(n_done)
            yield crystals

    def generate_valid(
        self, indices: Sequence[int], *, progress: Callable[[int], None] | None = None
    ) -> Iterator[list[Crystal]]:
        """Return an iterator over the crystals of some requests, checked, until n of each are valid."""
        n_done = 0
        for index in indices:
            n = self.plans[index].request.n
            crystals: list[Crystal] = []
            for start in itertools.count(0, n):
                new = self._crystals(index, start, n)
                annotation.validate(new, self.executor)
                crystals += new
                if len(new) < n or count_valid(crystals) >= n:
                    break
            n_done += n
            if progress is not None:
                progress(n_done)
            yield until_nth_valid(crystals, n)

    def _crystals(self, index: int, start: int, n: int) -> list[Crystal]:
        plan = self.plans[index]
        found = analogues_of(self.library, plan, start + n, max_atoms=self._max_atoms)
        return [
            crystal_of(analogue, self.first[index] + start + i, plan.note)
            for i, analogue in enumerate(found[start:])
        ]


def crystal_of(analogue: Analogue, index: int, note: str) -> Crystal:
    """Return an analogue as a crystal.

    Args:
        index: of the sample.
        note: how the request was interpreted.
    """
    description = analogue.description
    return Crystal(
        get_language("orbits"),
        language.to_ids(description),
        n_prompt=len(language.prompt(description.composition)),
        log_likelihood=math.log(max(analogue.probability, 1e-300)),
        source=Source(NAME, 0, index, note, relative=analogue.relative),
    )


class CombinedGenerator:
    """A share of the crystals of each request made of known ones, where it has relatives, the others sampled.

    Args:
        selection: how many samples a request may take; by default its n.
        share: of known ones.
    """

    def __init__(
        self,
        model: Model,
        library: Library,
        requests: Sequence[Request | InterpretedRequest],
        settings: SamplingOptions,
        selection: SelectionOptions | None = None,
        *,
        share: float = 0.5,
        first: Sequence[int] | None = None,
        starts: Sequence[int] | None = None,
        max_atoms: int | None = None,
        executor: Executor | None = None,
    ) -> None:
        self.model, self.library = model, library
        self._selection = selection
        self._share, self._max_atoms = share, max_atoms
        self.settings, self.executor = settings, executor
        self.plans = interpret_all(requests, settings, max_atoms)
        _reject_conditions(self.plans)
        attempts = attempts_of(self.plans, selection)
        self.first = [0, *itertools.accumulate(attempts)][:-1] if first is None else list(first)
        self.starts = [0] * len(self.plans) if starts is None else list(starts)

    @cached_property
    def _network(self) -> Generator:
        """The generator that samples."""
        return self._sampler(self.plans, self.first, self.starts)

    def note(self, index: int) -> str:
        """Describe how a request was interpreted."""
        return self._network.note(index)

    def check(self) -> None:
        """Check that each request can be generated; see `Generator.check`."""
        self._network.check()

    def choices(self, index: int) -> list[Choice]:
        """Return what the sampled crystals of a request may be given; see `Generator.choices`."""
        return self._network.choices(index)

    def generate(
        self, indices: Sequence[int], *, progress: Callable[[int], None] | None = None
    ) -> Iterator[list[Crystal]]:
        """Return an iterator over the crystals of some requests: made of relatives first, then sampled."""
        return self._both(indices, progress, valid=False)

    def split(self, index: int) -> tuple[list[Crystal], Generator | None]:
        """Return the crystals of a request that are made of known ones, and what samples the rest, if any."""
        made, missing = self._made([index], valid=False)
        return made[index], self._rest(made, missing) if missing else None

    def crystals(self, index: int) -> Iterator[Crystal]:
        """Yield the crystals of a request; the network is read after those that are made of known ones."""
        made, missing = self._made([index], valid=False)
        yield from made[index]
        if missing:
            yield from next(self._rest(made, missing).generate([0]))

    def generate_valid(
        self, indices: Sequence[int], *, progress: Callable[[int], None] | None = None
    ) -> Iterator[list[Crystal]]:
        """Return an iterator over the crystals of some requests, checked, until n of each are valid."""
        return self._both(indices, progress, valid=True)

    def _both(
        self, indices: Sequence[int], progress: Callable[[int], None] | None, *, valid: bool
    ) -> Iterator[list[Crystal]]:
        n_done = 0
        # A few requests at first: the first crystals do not wait for the relatives of a long list.
        for some in grouped(indices, lambda _: 1, (FEWEST << k for k in itertools.count())):
            made, missing = self._made(some, valid=valid)
            n_done += sum(map(len, made.values()))
            shown = None if progress is None else _add(n_done, progress)
            if shown is not None:
                shown(0)
            sampled: Iterator[list[Crystal]] = iter(())
            if missing:  # else the network is not even read
                sampler = self._rest(made, missing)
                sample = sampler.generate_valid if valid else sampler.generate
                sampled = sample(range(len(missing)), progress=shown)
            for i in some:
                new = next(sampled) if i in missing else []
                n_done += len(new)
                yield made[i] + new

    def _made(
        self, indices: Sequence[int], *, valid: bool
    ) -> tuple[dict[int, list[Crystal]], dict[int, int]]:
        """Return what is made of known crystals, and how many crystals of which requests are missing."""
        counts = {
            i: math.ceil(self._share * self.plans[i].request.n)
            for i in indices
            if self.plans[i].request.formula is not None
        }
        made: dict[int, list[Crystal]] = {i: [] for i in indices}
        made |= dict(zip(counts, self._of_relatives(counts, valid=valid), strict=True))
        missing = {
            i: self.plans[i].request.n - (count_valid(made[i]) if valid else len(made[i])) for i in indices
        }
        return made, {i: n for i, n in missing.items() if n > 0}

    def _rest(self, made: dict[int, list[Crystal]], missing: dict[int, int]) -> Generator:
        """Return what samples the crystals that are missing."""
        return self._sampler(
            [_resized(self.plans[i], n) for i, n in missing.items()],
            [self.first[i] for i in missing],
            [self.starts[i] + len(made[i]) for i in missing],
        )

    def _sampler(
        self, plans: Sequence[InterpretedRequest], first: Sequence[int], starts: Sequence[int]
    ) -> Generator:
        return Generator(
            self.model,
            plans,
            self.settings,
            self._selection,
            first=first,
            starts=starts,
            executor=self.executor,
            library=self.library,
        )

    def _of_relatives(self, counts: dict[int, int], *, valid: bool) -> Iterator[list[Crystal]]:
        generator = AnalogueGenerator(
            self.library,
            [_resized(self.plans[i], n) for i, n in counts.items()],
            self.settings,
            first=[self.first[i] for i in counts],
            starts=[self.starts[i] // 2 for i in counts],
            max_atoms=self._max_atoms,
            executor=self.executor,
        )
        return (generator.generate_valid if valid else generator.generate)(range(len(counts)))


def _reject_conditions(plans: Sequence[InterpretedRequest]) -> None:
    """Raise InputError if a request has conditions, which known crystals cannot follow."""
    given = next((plan.conditions for plan in plans if plan.conditions), None)
    if given is not None:
        raise InputError(
            f"condition {given[0].name!r}: known crystals follow none, sample with --from network"
        )


def _add(n_before: int, progress: Callable[[int], None]) -> Callable[[int], None]:
    return lambda n: progress(n_before + n)


def _resized(plan: InterpretedRequest, n: int) -> InterpretedRequest:
    """Return a request for another number of crystals."""
    return replace(plan, request=plan.request.model_copy(update={"n": n}))


AnyGenerator = Generator | AnalogueGenerator | CombinedGenerator


def resolve_source(known: ReferenceOptions | None, model: str, *, usable: bool = True) -> ReferenceOptions:
    """Return where crystals come from, with `auto` resolved: a bundled model goes with the bundled library.

    Args:
        known: as given; None: the defaults.
        model: name or path of the model.
        usable: whether crystals of the library can serve, such as for requests with a formula alone.
    """
    return (known or ReferenceOptions.defaults()).resolved(bundled=usable and model in list_models())


def library_of(known: ReferenceOptions) -> Library | None:
    """Return the known crystals that options ask for, if any; raises as `load_library`."""
    if known.crystals_from not in {"references", "both", "reading"}:  # `auto` that nobody resolved takes none
        return None
    return load_library(known.references)


def make_generator(
    model: Model | None,
    requests: Sequence[Request | InterpretedRequest],
    settings: SamplingOptions,
    selection: SelectionOptions | None = None,
    library: Library | None = None,
    *,
    reading: bool = False,
    **where: Any,
) -> AnyGenerator:
    """Return the generator of requests: of a network, of known crystals, or of both.

    Args:
        model: loaded; None: known crystals alone are used.
        selection: how many samples a request may take.
        library: of known crystals; None: the model alone is used.
        reading: whether the model reads known crystals and makes all crystals itself.
        where: `first`, `starts` and `executor` of `Generator`.

    Raises:
        InputError: the model is to read known crystals, and was not trained to.
    """
    if library is None or reading:
        assert model is not None  # noqa: S101 - callers have one of the two
        if reading and not model.config.n_relatives:
            raise InputError(
                f"the model {model.name!r} reads no known crystals: take --from both, or train one with "
                "--relatives-share"
            )
        return Generator(model, requests, settings, selection, library=library, **where)
    if model is None:
        return AnalogueGenerator(library, requests, settings, **where)
    return CombinedGenerator(model, library, requests, settings, selection, **where)
