"""From requests to crystals: choices, prompts, rules, sampling. What the command line and Python call.

Knows how the parts fit together, and none of their insides. Writes no files.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
import secrets
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from crystallm.asking import Plan, Request, opened, understand, validated
from crystallm.errors import InputError, TextError
from crystallm.execution.batching import Portion

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pymatgen.core import Structure

    from crystallm.choosing import Choice
    from crystallm.compositions import Drawer
    from crystallm.crystals.crystal import Crystal
    from crystallm.crystals.selection import Ranking, Selection
    from crystallm.models.model import Model
    from crystallm.sampling.sequence import Draft, Options, RowState, Rules, Sample

_LOG = logging.getLogger(__name__)
JUDGED_TOGETHER = 256
"""Crystals that are judged together, at most; fewer where these take more than seconds."""

_SAMPLING = {"temperature", "top_k", "top_p", "seed", "batch_size", "max_new_tokens"}
"""The settings that `decode.sample` takes as they are."""


class Settings(BaseModel):
    """How to sample. Frozen; refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str = "default"
    """Name of a bundled model, a folder, or a published `ckpt.pt`."""
    temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Logits are divided by it; 0 takes the likeliest token."""
    top_k: int | None = Field(default=10, ge=1)
    """Sample from the k likeliest tokens; None for all."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Sample from the likeliest tokens that together hold this probability; None for all."""
    seed: int = Field(default=0, ge=0, lt=2**64)
    """With a sample's number, decides its random stream."""
    constraints: Literal["full", "syntax", "none"] = "full"
    """`full`: only what can still become a crystal with the composition and group that were asked for.
    `syntax`: only what keeps the form of a text. `none`: the network alone."""
    device: str = "auto"
    """`auto` takes a GPU where there is one; `cpu`, `cuda`, `cuda:1`, `mps`."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the network. `auto` is float32, in which a crystal does not depend on what is written
    beside it; bfloat16 is faster for large networks, and some crystals then do."""
    batch_size: int = Field(default=32, ge=1)
    """Crystals written at a time."""
    max_new_tokens: int = Field(default=3000, ge=1)
    """A crystal that has so many tokens and no end is left unfinished."""


class Generator:
    """A model at work on a list of requests.

    Sample j of request i has the index (samples that the requests before i may take) + j, so a crystal
    depends on the list, the settings and its place only, not on which requests are done together or again.

    Args:
        model: loaded.
        requests: all of the run.
        settings: how to sample.
        selection: how many samples a request may take; by default as many as it asks for.
        first: index of the first sample of each request, for requests that are part of a longer list.
        starts: number of the first sample to write of each request, where others write those before; 0 if
            None. The indices are those of the whole request.
        most_atoms: of the cells that are tried where Z is to be chosen; None for as many as suit.

    Attributes:
        plans: each request understood.
        first: index of the first sample of each.
        starts: number of the first sample to write of each.

    Raises:
        InputError: a request that cannot be understood or written, or whose prompt fills the context.
    """

    def __init__(
        self,
        model: Model,
        requests: Sequence[Request],
        settings: Settings,
        selection: Selection | None = None,
        *,
        first: Sequence[int] | None = None,
        starts: Sequence[int] | None = None,
        most_atoms: int | None = None,
    ) -> None:
        self.model = model
        self.settings = settings
        full = settings.constraints == "full"
        self.plans = [understand(request, fitting=full, most_atoms=most_atoms) for request in requests]
        self._tries = [request.n if selection is None else selection.tries(request.n) for request in requests]
        self.first = [0, *itertools.accumulate(self._tries)][:-1] if first is None else list(first)
        self.starts = [0] * len(self.plans) if starts is None else list(starts)
        self._choices: dict[int, tuple[list[Choice], str]] = {}
        self._weighed: dict[Request, tuple[list[Choice], str]] = {}
        self._drawer: Drawer | None = None
        for unit, plan in enumerate(self.plans):
            if not (plan.cells or plan.any_group or plan.wanted):
                self._choices[unit] = ([self._only_choice(plan)], plan.note)

    def note(self, unit: int) -> str:
        """How a request was read and, where something was left to choose, what is tried with which weight."""
        if self.plans[unit].wanted is not None:
            return self.plans[unit].note  # each sample has a composition of its own
        return self._open(unit)[1]

    def choices(self, unit: int) -> list[Choice]:
        """What samples of a request may be given, with weights; weighed by the network when first needed."""
        return self._open(unit)[0]

    def rules(self, unit: int) -> Rules | None:
        """What may be written behind each of these, and behind all that begins with one; None for anything.

        Raises:
            InputError: no rule can be made for the request.
        """
        choices = self.choices(unit)
        return self._rules([(unit, 0)] * len(choices), choices)

    def check(self) -> None:
        """Look whether each request can be written; of several Z, the smallest.

        Raises:
            InputError: there are no rules for one, or its prompt fills the context.
        """
        for unit, plan in enumerate(self.plans):
            if plan.wanted is not None:
                from crystallm import compositions

                compositions.check(self.model, plan.wanted)
            elif plan.cells:
                smallest = self._only_choice(replace(plan, cell=plan.cells[0]))
                self._rules([(unit, 0)], [smallest])
            elif unit in self._choices:
                self._rules([(unit, 0)], self._choices[unit][0][:1])

    def write(
        self, units: Sequence[int], *, progress: Callable[[int], None] | None = None
    ) -> Iterator[list[Crystal]]:
        """Write the crystals of some requests.

        Requests are put together until a batch is full.

        Args:
            units: which requests.
            progress: called with the number of crystals written so far, those of `units` alone counted.

        Returns:
            An iterator over the lists of crystals, one list a unit, in the order of `units`, each list in the
            order of the samples. The work is done as it is drawn from.

        Raises:
            InputError: at once, if no rule can be made for a request.
        """
        counts = [self.plans[unit].request.n for unit in units]
        places = zip(units, counts, strict=True)
        found = self._samples(
            [(unit, self.starts[unit] + j) for unit, n in places for j in range(n)], progress
        )
        return (list(itertools.islice(found, n)) for n in counts)

    def write_valid(
        self, units: Sequence[int], *, progress: Callable[[int], None] | None = None
    ) -> Iterator[list[Crystal]]:
        """Write and judge the crystals of some requests until each has as many valid ones as it asks for.

        Args:
            units: which requests.
            progress: called with the number of valid crystals so far.

        Returns:
            An iterator over the lists of crystals, one list a unit, in the order of `units`: all that were
            written, broken ones too, up to the last valid one that was needed, or to the bound of the
            selection. They do not depend on how many were written at a time.

        Raises:
            InputError: while drawing, if no rule can be made for a request.
        """
        from crystallm.crystals import annotation

        n_before = 0
        todo = list(units)
        portion = Portion(JUDGED_TOGETHER)
        while todo:
            group: list[int] = []
            while todo and sum(self.plans[unit].request.n for unit in group) < portion.size:
                group.append(todo.pop(0))
            found: dict[int, list[Crystal]] = {unit: [] for unit in group}
            while pairs := [
                (unit, len(found[unit]) + j)
                for unit in group
                for j in range(self._further(unit, found[unit]))
            ]:
                crystals = list(self._samples(pairs))
                annotation.judge(crystals)
                for (unit, _), crystal in zip(pairs, crystals, strict=True):
                    found[unit].append(crystal)
                if progress is not None:
                    valid = (min(_n_valid(found[unit]), self.plans[unit].request.n) for unit in group)
                    progress(n_before + sum(valid))
            for unit in group:
                n = self.plans[unit].request.n
                n_before += min(_n_valid(found[unit]), n)
                valid_so_far = itertools.accumulate(crystal.validity.valid for crystal in found[unit])
                last = next((j for j, count in enumerate(valid_so_far) if count == n), len(found[unit]))
                yield found[unit][: last + 1]
            portion.done(sum(map(len, found.values())))

    def _further(self, unit: int, found: Sequence[Crystal]) -> int:
        """How many crystals to write next, so that few too many and few rounds are likely."""
        n_valid = _n_valid(found)
        missing = self.plans[unit].request.n - n_valid
        if missing <= 0:
            return 0
        share = (n_valid + 1) / (len(found) + 1)
        return min(math.ceil(missing / share), self._tries[unit] - len(found))

    def _samples(
        self, pairs: Sequence[tuple[int, int]], progress: Callable[[int], None] | None = None
    ) -> Iterator[Crystal]:
        """Crystals of (unit, number of the sample in it), in this order."""
        from crystallm.sampling import sample as sampling_sample

        chosen = self._chosen(pairs)
        options = self._options()
        samples = sampling_sample.sample(
            self.model.network,
            [choice.prompt for choice in chosen],
            stop=options.stop,
            indices=[self.first[unit] + j for unit, j in pairs],
            rules=self._rules(pairs, chosen),
            progress=None if progress is None else lambda done, _: progress(done),
            **self.settings.model_dump(include=_SAMPLING),
        )
        return (self._crystal(choice, sample) for choice, sample in zip(chosen, samples, strict=True))

    def drafts(self, unit: int) -> list[tuple[Draft, Callable[[Sample], Crystal]]]:
        """The samples of a request, for whoever writes them elsewhere, one text after the other.

        Returns:
            For each sample what is to be written, and what makes a crystal of that.

        Raises:
            InputError: no rule can be made for the request, or its texts cannot be written.
        """
        from crystallm.sampling import sample as sampling_sample
        from crystallm.sampling import sequence

        pairs = [(unit, self.starts[unit] + j) for j in range(self.plans[unit].request.n)]
        chosen = self._chosen(pairs)
        rules, options = self._rules(pairs, chosen), self._options()
        made: list[tuple[Draft, Callable[[Sample], Crystal]]] = [
            (
                sequence.Draft(choice.prompt, options, self.settings.seed, self.first[unit] + j, rules),
                partial(self._crystal, choice),
            )
            for (_, j), choice in zip(pairs, chosen, strict=True)
        ]
        for draft in {draft.prompt: draft for draft, _ in made}.values():
            sampling_sample.check(self.model.network, draft)
        return made

    def _options(self) -> Options:
        from crystallm.sampling import sequence

        language, settings = self.model.language, self.settings
        return sequence.Options(
            sequence.Stop(language.end_ids, slide=language.name == "cif"),
            settings.temperature,
            settings.top_k,
            settings.top_p,
            settings.max_new_tokens,
        )

    def _crystal(self, choice: Choice, sample: Sample) -> Crystal:
        """What a sample is, written for a choice."""
        from crystallm.crystals.crystal import Crystal, Source

        return Crystal(
            self.model.language,
            sample.ids,
            n_prompt=choice.n_asked,
            log_likelihood=sample.log_likelihood + choice.log_likelihood,
            ended=sample.ended,
            source=Source(
                self.model.name,
                self.settings.seed,
                sample.index,
                choice.note,
                z_weight=choice.z_weight,
                space_group_weight=choice.space_group_weight,
            ),
        )

    def _chosen(self, pairs: Sequence[tuple[int, int]]) -> list[Choice]:
        """What each sample is given."""
        from crystallm import choosing

        self._weigh(dict.fromkeys(unit for unit, _ in pairs))
        chosen: list[Choice] = []
        for unit, together in itertools.groupby(pairs, key=lambda pair: pair[0]):
            samples = [j for _, j in together]
            if self.plans[unit].wanted is not None:
                chosen += self._compositions().taken(self.plans[unit], self.first[unit], samples)
                continue
            choices, _ = self._open(unit)
            if len(choices) == 1:
                chosen += choices * len(samples)
                continue
            weights = [choice.weight for choice in choices]
            taken = choosing.spread(weights, self.settings.seed, self.first[unit], samples)
            chosen += [choices[i] for i in taken]
        return chosen

    def _compositions(self) -> Drawer:
        """What draws compositions that are the network's to choose within what was asked."""
        from crystallm import compositions

        if self._drawer is None:
            self._drawer = compositions.Drawer(self.model, self.settings)
        return self._drawer

    def _open(self, unit: int) -> tuple[list[Choice], str]:
        """The choices of a request, and what to say of them; weighed by the network when first needed."""
        plan = self.plans[unit]
        if plan.wanted is not None:
            return self._compositions().able(plan, self.first[unit]), plan.note
        self._weigh([unit])
        return self._choices[unit]

    def _weigh(self, units: Iterable[int]) -> None:
        """Weigh what requests leave open, all that has not been weighed before together."""
        from crystallm import choosing

        left = {
            unit: self.plans[unit].request.model_copy(update={"n": 1})
            for unit in units
            if unit not in self._choices and self.plans[unit].wanted is None
        }
        new: dict[Request, choosing.Question] = {}
        for unit, asked in left.items():
            if asked not in self._weighed:
                plan = self.plans[unit]
                cells = plan.cells or (() if plan.cell is None else (plan.cell,))
                new[asked] = choosing.Question(cells, plan.space_group, bool(plan.cells), plan.any_group)
        if new:
            found = choosing.choices_of_many(self.model, list(new.values()), self.settings)
            self._weighed.update(zip(new, found, strict=True))
        self._choices |= {unit: self._weighed[asked] for unit, asked in left.items()}

    def _only_choice(self, plan: Plan) -> Choice:
        """What the network is given where nothing is to be chosen.

        Raises:
            InputError: the language cannot say it, or it leaves no room in the context.
        """
        from crystallm.choosing import Choice

        language = self.model.language
        number = None if plan.space_group is None else plan.space_group.number
        if plan.request.prompt is not None:
            try:
                ids = language.ids(plan.request.prompt)
            except TextError as error:
                raise InputError(
                    f"the prompt is no text of the language {language.name!r}: {error}"
                ) from None
        else:
            ids = language.prompt(None if plan.cell is None else plan.cell.composition, number)
        context = self.model.config.context
        if len(ids) >= context:
            raise InputError(
                f"the prompt ({plan.note}) has {len(ids)} tokens, and the context of the model "
                f"{self.model.name!r} holds {context}: ask for less, or take a model with a longer one"
            )
        return Choice(tuple(ids), len(ids), plan.cell, number, plan.note)

    def _rules(self, pairs: Sequence[tuple[int, int]], chosen: Sequence[Choice]) -> Rules | None:
        """What may be written behind each prompt."""
        from crystallm.grammar import factory

        found: dict[tuple[int, ...], Rules] = {}
        for (unit, _), choice in zip(pairs, chosen, strict=True):
            if choice.prompt in found:
                continue
            rules = factory.rules(
                self.model.language.name,
                None if choice.cell is None else choice.cell.composition,
                choice.space_group,
                self.settings.constraints,
                self.model.config.context,
            )
            if rules is None:
                continue
            if self.plans[unit].request.prompt is not None:
                try:
                    rules.start(choice.prompt)
                except InputError as error:
                    raise InputError(
                        f"the prompt breaks the rules: {error}; or take constraints none"
                    ) from None
            found[choice.prompt] = rules
        return _ByPrompt(found) if found else None


def _n_valid(crystals: Sequence[Crystal]) -> int:
    return sum(crystal.validity.valid for crystal in crystals)


class _ByPrompt:
    """The rules of several requests, told apart by what they begin with."""

    def __init__(self, rules: Mapping[tuple[int, ...], Rules]) -> None:
        self._rules = rules

    def start(self, prompt: Sequence[int]) -> RowState:
        begun = tuple(prompt)
        known = begun if begun in self._rules else max(self._beginning(begun), key=len, default=None)
        return _Free() if known is None else self._rules[known].start(prompt)

    def _beginning(self, ids: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """The prompts that a text begins with."""
        return (prompt for prompt in self._rules if ids[: len(prompt)] == prompt)


class _Free:
    """No rule: all tokens may come next."""

    def allowed(self) -> Sequence[int] | None:
        return None

    def advance(self, token: int) -> None:
        pass


def generate(
    formula: str | None = None,
    *,
    z: int | Literal["auto"] | None = None,
    space_group: int | str | None = None,
    elements: str | None = None,
    elements_subset: bool = False,
    like: Structure | None = None,
    prompt: str | None = None,
    n: int = 10,
    valid: bool = False,
    max_tries: int | None = None,
    rank: Ranking | None = None,
    best: int | None = None,
    energy: str | None = None,
    relax: bool = False,
    formation: bool = False,
    hull: str | None = None,
    model: str | os.PathLike[str] | Model = "default",
    temperature: float = 1.0,
    top_k: int | None = 10,
    top_p: float | None = None,
    seed: int | None = None,
    constraints: Literal["full", "syntax", "none"] = "full",
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    batch_size: int = 32,
) -> list[Crystal]:
    """Write crystals for a formula.

    Args:
        formula: as people write it, `TiO2`, `(NH4)2SO4`; None leaves the composition to the network.
        z: formula units (of the reduced formula) in the conventional cell; `auto`: samples are spread over
            the numbers that the network finds likely; None: so it is for a reduced formula, `TiO2`, and a
            multiple of one, `Ti2O4`, is the cell as written.
        space_group: number or symbol; None leaves it to the network; `auto`: samples are spread over the
            groups that the network finds likely.
        elements: a chemical system, `Li-Fe-O`, in place of a formula: the network chooses how many atoms of
            each.
        elements_subset: let some of these be left out.
        like: a structure whose space group and Wyckoff positions to keep, with the elements of the formula;
            in place of z and space_group.
        prompt: any beginning of a text in the model's language, in place of all these.
        n: how many.
        valid: keep the valid ones only, and write on until there are n.
        max_tries: crystals to write for that, at most; None: ten times n.
        rank: `agreement`, `likelihood`, `both` or `energy`: fold equal crystals and put the best first (see
            `answers`).
        best: keep so many distinct ones, the best. Ranks by agreement unless told otherwise.
        energy: ask this energy model, `chgnet` or any ASE calculator as `module:factory`, about the crystals;
            ranks by energy unless told otherwise.
        relax: relax the crystals with it first.
        formation: tell formation energies, too.
        hull: tell how far the crystals stand above the hull of the entries in this file.
        model: name of a bundled model, a path, or a model loaded before.
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_k: sample from the k likeliest tokens; None for all.
        top_p: sample from the likeliest tokens that together hold this probability; None for all.
        seed: the same seed gives the same crystals (in float32); None draws one, kept in `crystal.source`.
        constraints: `full`, `syntax` or `none`; see `Settings`.
        device: where the network runs, unless it is loaded already.
        dtype: arithmetic of the network, likewise; see `Settings`.
        batch_size: crystals written at a time.

    Returns:
        n crystals in the order of their samples, or ranked. Some may be broken or not valid:
        `crystal.validity` says so. Fewer with `best`, or if `valid` has come to its bound, which is logged.

    Raises:
        InputError: a formula or group that is none, a cell that cannot fill the group, an option out of its
            range.
        CheckpointError: there is no such model.
    """
    from crystallm.crystals import annotation, ranking
    from crystallm.crystals import selection as crystals_selection
    from crystallm.models.load import load_model
    from crystallm.models.model import Model

    asked: dict[str, Any] = {
        "formula": formula, "z": z, "space_group": space_group, "n": n, "prompt": prompt,
        "elements": elements, "elements_subset": elements_subset,
    }  # fmt: skip
    if like is not None and (formula is None or (z, space_group, prompt, elements) != (None,) * 4):
        raise InputError("like takes a formula, and neither z nor space_group nor elements nor prompt")
    request = opened(validated(Request, asked))
    selection = validated(
        crystals_selection.Selection,
        {
            "valid": valid,
            "max_tries": max_tries,
            "rank": rank,
            "best": best,
            "energy": energy,
            "relax": relax,
            "formation": formation,
            "hull": hull,
        },
    )
    settings = validated(
        Settings,
        {
            "model": model.name if isinstance(model, Model) else str(model),
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "seed": secrets.randbits(63) if seed is None else seed,
            "constraints": constraints,
            "device": device,
            "dtype": dtype,
            "batch_size": batch_size,
        },
    )
    if energy is not None:
        from crystallm.energy.registry import require

        require(energy)
    understand(request, fitting=constraints == "full")  # before a model is loaded, which takes longer
    loaded = model if isinstance(model, Model) else load_model(model, device=device, dtype=dtype)
    if like is not None:
        from crystallm import likeness

        begun = loaded.language.text(likeness.like(like, str(formula), loaded.language))
        request = Request(prompt=begun, n=n)
    generator = Generator(loaded, [request], settings, selection)
    (crystals,) = generator.write_valid([0]) if valid else generator.write([0])
    if valid and _n_valid(crystals) < n:
        _LOG.warning(
            "%s: %d of %d crystals are valid after %d tries",
            formula or elements or "no formula",
            _n_valid(crystals),
            n,
            len(crystals),
        )
    if selection.ranking is not None:
        if not valid:
            annotation.judge(crystals)
        if energy is not None:
            annotation.weigh(crystals, energy, relax=relax, device=settings.device)
            annotation.relate(crystals, energy, formation=formation, hull=hull, device=settings.device)
        ranking.rank([crystals], selection.ranking)
    if selection == crystals_selection.Selection():
        return crystals
    kept = ranking.kept(
        [crystal.rank for crystal in crystals],
        [crystal.cluster for crystal in crystals],
        [crystal.validity.valid for crystal in crystals],
        selection,
    )
    return [crystals[i] for i in kept]


def fingerprint(model: Model) -> str:
    """A few characters that tell the weights of one model from another's."""
    import torch

    embedding = model.network.transformer.wte.weight.detach().to("cpu", torch.float32)
    return hashlib.blake2b(embedding.numpy().tobytes(), digest_size=8).hexdigest()
