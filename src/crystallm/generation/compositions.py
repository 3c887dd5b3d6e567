"""Compositions that the network chooses where a chemical system, or a space group alone, was asked for.

A text tells its composition before its group, and each element before the next one. Were it simply held to
what was asked, token by token, nothing written early would heed what must come later: a composition would be
begun that the network never ends with the element or the group that must follow. So compositions are drawn
token by token under the rules (`grammar.composition`), and each is weighed by the probability that plain
sampling goes on within the rules at every step,

    w = prod_t Z_t,   Z_t = sum_{allowed tokens} p(token | what stands before t),

times p(g) / sum_{allowed groups} p(group) if the group g was asked for. The last t is where the composition
ends: allowed are the elements that may follow and whatever ends it (each group that can hold it, or the end
of the line). p is at the temperature of the settings, without top_k and top_p. Taken by these weights,
compositions come as those of plain sampling that happen to have what was asked for (importance sampling;
exact as the number of draws grows, where top_k and top_p cut nothing off).

The first `TOGETHER[0]` samples of a request share `DRAWS[0]` drawn compositions, each `TOGETHER[1]` behind
them `DRAWS[1]`, decided by the seed and the index of the first of them. Each takes one as in
`choosing.spread`.

Refuses to know what is written behind the composition.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm.crystallography import formula as formulas
from crystallm.errors import CrystallmError
from crystallm.generation import choices as generation_choices
from crystallm.generation.choices import Choice
from crystallm.grammar import factory, text_length
from crystallm.sampling.sample import next_token_log_probs
from crystallm.sampling.token_sampler import draw_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from crystallm.generation.interpretation import InterpretedRequest
    from crystallm.generation.request import SamplingOptions
    from crystallm.grammar.cif.state import CifGrammar
    from crystallm.grammar.composition import CompositionConstraint
    from crystallm.grammar.orbits.state import OrbitsGrammar
    from crystallm.models.model import Model

    Composition = tuple[tuple[str, int], ...]

TOGETHER = (64, 1024)
"""Samples in a row that share their drawn compositions: the first of a request, and those behind them."""
DRAWS = (256, 1024)
"""Compositions drawn for these."""
ROUNDS = 4
"""Times that so many are drawn, at most, where none can be used."""
_LONGEST = 100  # tokens of a composition
_NEGLIGIBLE = 1e-6  # a composition with less weight is not taken


class CompositionSampler:
    """Draws compositions for samples, and keeps them for the next samples that share them."""

    def __init__(self, model: Model, settings: SamplingOptions) -> None:
        self._model, self._settings = model, settings
        self._drawn: dict[tuple[str, int, int], list[Choice]] = {}

    def taken(self, plan: InterpretedRequest, first: int, samples: Sequence[int]) -> list[Choice]:
        """What each sample of a request is given.

        Args:
            plan: of the request, one of which a composition is wanted.
            first: index of the request's first sample in the run.
            samples: their numbers in the request.
        """
        found: list[Choice] = []
        for block, together in itertools.groupby(samples, key=block_of):
            able = self.able(plan, first, block)
            weights = [choice.weight for choice in able]
            taken = generation_choices.assign_by_weight(weights, self._settings.seed, first, list(together))
            found += [able[i] for i in taken]
        return found

    def able(self, plan: InterpretedRequest, first: int, block: int = 0) -> list[Choice]:
        """The compositions that samples of a block share, drawn when first needed; see `choices`."""
        key = plan.note, first, block
        if key not in self._drawn:
            if plan.wanted is None:
                raise AssertionError("a composition is to be drawn that was given")
            self._drawn[key] = choices(
                self._model, plan.wanted, self._settings, first=first, block=block, note=plan.note
            )
        return self._drawn[key]


def block_of(sample: int) -> int:
    """Number of the block in which a sample of a request shares its compositions."""
    return 0 if sample < TOGETHER[0] else 1 + (sample - TOGETHER[0]) // TOGETHER[1]


def choices(
    model: Model,
    wanted: CompositionConstraint,
    settings: SamplingOptions,
    *,
    first: int,
    block: int,
    note: str,
) -> list[Choice]:
    """Compositions for a block of the samples of a request, with weights.

    Raises:
        InputError: the language cannot say the space group.
        CrystallmError: no composition that was drawn can be written within the model's context.
    """
    check(model, wanted)
    later = block > 0
    begin = TOGETHER[0] + TOGETHER[1] * (block - 1) if later else 0
    for turn in range(ROUNDS):
        # `choosing.spread` has the counters from (0, 0, 0, 1) on, the samples themselves those before it.
        key = np.array([settings.seed, first + begin], dtype=np.uint64)
        stream = np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, 2 + turn])))
        drawn = Counter(_draw(model, wanted, settings, stream.random((DRAWS[later], _LONGEST))))
        kept = {found: n for found, n in sorted(drawn.items()) if _fits_context(model, found, wanted)}
        if kept:
            return _weighed(model, wanted, settings, kept, note)
    raise CrystallmError(
        f"{note}: of {ROUNDS * DRAWS[later]} compositions that the model {model.name!r} wrote, its context "
        f"of {model.config.context} tokens holds none: ask for fewer elements, or take another model"
    )


def check(model: Model, wanted: CompositionConstraint) -> None:
    """Look whether the language has a word for the space group. Raises InputError: it has none."""
    model.language.prompt((("O", 2),), wanted.group)


def _draw(
    model: Model, wanted: CompositionConstraint, settings: SamplingOptions, uniforms: Any
) -> Iterator[Composition]:
    """Compositions drawn under the rules, one for each row of random numbers, (N, _LONGEST) float64.

    What the rules bring to no end gives none.
    """
    import torch

    rules = _rules(model, wanted)
    texts = [tuple(model.language.prompt())] * len(uniforms)
    open_rows = list(range(len(uniforms)))
    for step in range(_LONGEST):
        if not open_rows:
            break
        distinct = sorted({texts[row] for row in open_rows})
        allowed = {text: sorted(rules.start(text).allowed() or ()) for text in distinct}
        asked = [text for text in distinct if len(allowed[text]) > 1]  # what must come, need not be asked for
        log_p = dict(zip(asked, next_token_log_probs(model.network, asked), strict=True))
        going_on = []
        for text in distinct:
            rows = [row for row in open_rows if texts[row] == text]
            able = allowed[text]
            if not able:
                continue
            tokens = [able[0]] * len(rows)
            if len(able) > 1:
                logits = log_p[text][-1][able].expand(len(rows), -1)  # (N, allowed)
                drawn = torch.tensor(uniforms[rows, step], dtype=torch.float64)
                places = draw_tokens(
                    logits,
                    drawn,
                    temperature=settings.temperature,
                    top_k=settings.top_k,
                    top_p=settings.top_p,
                )
                tokens = [able[place] for place in places.tolist()]
            for row, token in zip(rows, tokens, strict=True):
                if model.language.ends_composition(token):
                    yield tuple(rules.start(text).composition.items())
                else:
                    texts[row] = (*text, token)
                    going_on.append(row)
        open_rows = sorted(going_on)


def _weighed(
    model: Model,
    wanted: CompositionConstraint,
    settings: SamplingOptions,
    drawn: Mapping[Composition, int],
    note: str,
) -> list[Choice]:
    """Each composition with its share of the samples."""
    language = model.language
    prompts = [language.prompt(found, wanted.group) for found in drawn]
    weights, likelihoods = [], []
    rows = next_token_log_probs(model.network, prompts)
    for (found, times), log_p in zip(drawn.items(), rows, strict=True):
        weight, likelihood = log_weight(model, wanted, found, log_p, settings.temperature)
        weights.append(math.log(times) + weight)
        likelihoods.append(likelihood)
    shares = np.exp(np.array(weights) - max(weights))
    shares /= shares.sum()
    made = []
    for found, prompt, share, likelihood in zip(drawn, prompts, shares.tolist(), likelihoods, strict=True):
        if share < _NEGLIGIBLE:
            continue
        cell = formulas.cell("".join(f"{symbol}{n}" for symbol, n in found))
        written = cell.note.removeprefix("cell as written: ")
        made.append(
            Choice(
                prompt=tuple(prompt),
                n_asked=len(language.prompt()),
                cell=cell,
                space_group=wanted.group,
                note=f"{note}, {written}",
                weight=share,
                log_likelihood=likelihood,
            )
        )
    return made


def log_weight(
    model: Model, wanted: CompositionConstraint, composition: Composition, log_p: Tensor, temperature: float
) -> tuple[float, float]:
    """Return the logarithm of the weight that the module describes, and the log-likelihood of the prompt.

    Args:
        log_p: behind each token of its prompt, (T, V).
        temperature: of the settings; at 0 nothing is weighed, as all draws are one.
    """
    import torch

    language, rules = model.language, _rules(model, wanted)
    text = language.prompt(composition)
    tempered = torch.log_softmax(log_p / temperature, dim=-1) if temperature else log_p
    weight = likelihood = 0.0
    for place in range(len(language.prompt()), len(text)):
        able = list(rules.start(text[:place]).allowed() or ())
        weight += float(torch.logsumexp(tempered[place - 1][able], dim=0))
        likelihood += float(log_p[place - 1, text[place]])
    able = list(rules.start(text).allowed() or ())
    groups = [token for token in able if language.is_group_token(token)]
    if groups:  # the prompt ends before the token that ends the composition
        weight += float(torch.logsumexp(tempered[len(text) - 1][able], dim=0))
    if wanted.group is not None:
        if groups:  # the draw ended with any of them
            weight -= float(torch.logsumexp(tempered[len(text) - 1][groups], dim=0))
        told = language.prompt(composition, wanted.group)
        place = next(i for i, token in enumerate(told) if language.is_group_token(token))
        weight += float(tempered[place - 1, told[place]])
        likelihood += float(torch.stack([log_p[i - 1, told[i]] for i in range(len(text), len(told))]).sum())
    return weight if temperature else 0.0, likelihood


def _fits_context(model: Model, composition: Composition, wanted: CompositionConstraint) -> bool:
    """Whether the context holds a text of this composition."""
    if len(model.language.prompt(composition, wanted.group)) >= model.config.context:
        return False
    counts, context = tuple(sorted(n for _, n in composition)), model.config.context
    return model.language.slides or text_length.fits_context(counts, context, wanted.group)


def _rules(model: Model, wanted: CompositionConstraint) -> OrbitsGrammar | CifGrammar:
    """The rules of a text's beginning, up to its group."""
    rules = factory.make_grammar(model.language.name, wanted=wanted)
    if rules is None:
        raise AssertionError("full rules are none")
    return rules
