"""Compositions that the network chooses for a requested chemical system, or for a space group alone.

A sequence encodes its composition before its group, and one element after the other. With constraints on
each token alone, early tokens would ignore later constraints: the network would start compositions that it
never continues with the required element or group. So compositions are drawn token by token under the
grammar (`grammar.composition`), and each has as weight the probability that plain sampling stays within the
grammar at every step,

    w = prod_t Z_t,   Z_t = sum_{allowed tokens} p(token | tokens before t),

times p(g) / sum_{allowed groups} p(group) if the group g is requested. The last t is the end of the
composition: allowed are the elements that may follow and the tokens that end it (each group that can hold
it, or the end of the line). p is at the temperature of the settings, without top_k and top_p. Drawn with
these weights, compositions have the distribution of plain sampling, given the constraint (importance
sampling; exact for many draws if top_k and top_p exclude nothing).

The first `BLOCK_SIZES[0]` samples of a request share `N_DRAWS[0]` drawn compositions, each further
`BLOCK_SIZES[1]` samples share `N_DRAWS[1]`, decided by the seed and the index of the first sample. Each
sample takes one as in `choices.assign_by_weight`.

Does not depend on how the sequence continues after the composition.
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

BLOCK_SIZES = (64, 1024)
"""Consecutive samples that share their drawn compositions: the first block of a request, further blocks."""
N_DRAWS = (256, 1024)
"""Compositions drawn for the first block, and for each further one."""
MAX_ROUNDS = 4
"""Rounds of draws, at most, while the context holds none of the compositions."""
_MAX_TOKENS = 100  # of a composition
_NEGLIGIBLE = 1e-6  # a composition with less weight is left out


class CompositionSampler:
    """Draws compositions for samples, and keeps them for the next samples that share them.

    Args:
        model: gives the probabilities.
        settings: seed, temperature, top_k and top_p are used.
    """

    def __init__(self, model: Model, settings: SamplingOptions) -> None:
        self._model, self._settings = model, settings
        self._choices: dict[tuple[str, int, int], list[Choice]] = {}

    def assign(
        self, plan: InterpretedRequest, first: int, samples: Sequence[int]
    ) -> list[tuple[Choice, float]]:
        """Return the choice of each sample of a request, and its point; see `choices.assign_by_weight`.

        Args:
            plan: the request, with a constraint on its composition.
            first: index of the request's first sample in the run.
            samples: their numbers in the request.
        """
        found: list[tuple[Choice, float]] = []
        for block, numbers in itertools.groupby(samples, key=block_of):
            choices = self.choices(plan, first, block)
            weights = [choice.weight for choice in choices]
            taken = generation_choices.assign_by_weight(weights, self._settings.seed, first, list(numbers))
            found += [(choices[i], point) for i, point in taken]
        return found

    def choices(self, plan: InterpretedRequest, first: int, block: int = 0) -> list[Choice]:
        """Return the choices that samples of a block share, drawn when first needed; see `choices`."""
        key = plan.note, first, block
        if key not in self._choices:
            if plan.wanted is None:
                raise AssertionError("the composition is given")
            self._choices[key] = choices(
                self._model, plan.wanted, self._settings, first=first, block=block, note=plan.note
            )
        return self._choices[key]


def block_of(sample: int) -> int:
    """Return the number of the block in which a sample of a request shares its compositions."""
    return 0 if sample < BLOCK_SIZES[0] else 1 + (sample - BLOCK_SIZES[0]) // BLOCK_SIZES[1]


def choices(
    model: Model,
    wanted: CompositionConstraint,
    settings: SamplingOptions,
    *,
    first: int,
    block: int,
    note: str,
) -> list[Choice]:
    """Return compositions for a block of the samples of a request, with weights.

    Args:
        model: gives the probabilities.
        wanted: the constraint.
        settings: seed, temperature, top_k and top_p are used.
        first: index of the request's first sample in the run.
        block: see `block_of`.
        note: how the request was interpreted.

    Raises:
        InputError: the language cannot express the space group.
        CrystallmError: no drawn composition fits the context of the model.
    """
    check(model, wanted)
    is_later = block > 0
    block_start = BLOCK_SIZES[0] + BLOCK_SIZES[1] * (block - 1) if is_later else 0
    for attempt in range(MAX_ROUNDS):
        # `assign_by_weight` has the counters from (0, 0, 0, 1) on, the samples themselves those before it.
        key = np.array([settings.seed, first + block_start], dtype=np.uint64)
        stream = np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, 2 + attempt])))
        drawn = Counter(_draw(model, wanted, settings, stream.random((N_DRAWS[is_later], _MAX_TOKENS))))
        kept = {found: n for found, n in sorted(drawn.items()) if _fits_context(model, found, wanted)}
        if kept:
            return _with_weights(model, wanted, settings, kept, note)
    raise CrystallmError(
        f"{note}: the model {model.name!r} sampled {MAX_ROUNDS * N_DRAWS[is_later]} compositions, and its "
        f"context of {model.config.context} tokens holds none: request fewer elements, or take another model"
    )


def check(model: Model, wanted: CompositionConstraint) -> None:
    """Check that the language can express the space group.

    Raises:
        InputError: it cannot.
    """
    model.language.prompt((("O", 2),), wanted.group)


def _draw(
    model: Model, wanted: CompositionConstraint, settings: SamplingOptions, uniforms: Any
) -> Iterator[Composition]:
    """Yield compositions drawn under the grammar, from one row of random numbers, (N, _MAX_TOKENS), each.

    Rows that reach no end give none.
    """
    import torch

    from crystallm.sampling.sample import next_token_log_probs
    from crystallm.sampling.token_sampler import draw_tokens

    grammar = _grammar(model, wanted)
    texts = [tuple(model.language.prompt())] * len(uniforms)
    open_rows = list(range(len(uniforms)))
    for step in range(_MAX_TOKENS):
        if not open_rows:
            break
        distinct = sorted({texts[row] for row in open_rows})
        allowed = {text: sorted(grammar.start(text).allowed() or ()) for text in distinct}
        undecided = [text for text in distinct if len(allowed[text]) > 1]  # forced tokens need no network
        log_p = dict(zip(undecided, next_token_log_probs(model.network, undecided), strict=True))
        continued = []
        for text in distinct:
            rows = [row for row in open_rows if texts[row] == text]
            options = allowed[text]
            if not options:
                continue
            tokens = [options[0]] * len(rows)
            if len(options) > 1:
                logits = log_p[text][-1][options].expand(len(rows), -1)  # (N, allowed)
                drawn = torch.tensor(uniforms[rows, step], dtype=torch.float64)
                indices, _ = draw_tokens(
                    logits,
                    drawn,
                    temperature=settings.temperature,
                    top_k=settings.top_k,
                    top_p=settings.top_p,
                )
                tokens = [options[index] for index in indices.tolist()]
            for row, token in zip(rows, tokens, strict=True):
                if model.language.ends_composition(token):
                    yield tuple(grammar.start(text).composition.items())
                else:
                    texts[row] = (*text, token)
                    continued.append(row)
        open_rows = sorted(continued)


def _with_weights(
    model: Model,
    wanted: CompositionConstraint,
    settings: SamplingOptions,
    drawn: Mapping[Composition, int],
    note: str,
) -> list[Choice]:
    """Return each composition as a choice, with its share of the samples."""
    from crystallm.sampling.sample import next_token_log_probs

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
    weighted = []
    for found, prompt, share, likelihood in zip(drawn, prompts, shares.tolist(), likelihoods, strict=True):
        if share < _NEGLIGIBLE:
            continue
        cell = formulas.cell("".join(f"{symbol}{n}" for symbol, n in found))
        written = cell.note.removeprefix("cell as written: ")
        weighted.append(
            Choice(
                prompt=tuple(prompt),
                n_requested=len(language.prompt()),
                cell=cell,
                space_group=wanted.group,
                note=f"{note}, {written}",
                weight=share,
                log_likelihood=likelihood,
            )
        )
    return weighted


def log_weight(
    model: Model, wanted: CompositionConstraint, composition: Composition, log_p: Tensor, temperature: float
) -> tuple[float, float]:
    """Return the logarithm of the weight (see the module) and the log-likelihood of the prompt.

    Args:
        model: gives the probabilities.
        wanted: the constraint.
        composition: drawn.
        log_p: log-probabilities after each token of its prompt, (T, V).
        temperature: of the settings; at 0 the weight is 1, as all draws are equal.
    """
    import torch

    language, grammar = model.language, _grammar(model, wanted)
    text = language.prompt(composition)
    tempered = torch.log_softmax(log_p / temperature, dim=-1) if temperature else log_p
    weight = likelihood = 0.0
    for index in range(len(language.prompt()), len(text)):
        options = list(grammar.start(text[:index]).allowed() or ())
        weight += float(torch.logsumexp(tempered[index - 1][options], dim=0))
        likelihood += float(log_p[index - 1, text[index]])
    options = list(grammar.start(text).allowed() or ())
    groups = [token for token in options if language.is_group_token(token)]
    if groups:  # the prompt ends before the token that ends the composition
        weight += float(torch.logsumexp(tempered[len(text) - 1][options], dim=0))
    if wanted.group is not None:
        if groups:  # the draw ended with any of them
            weight -= float(torch.logsumexp(tempered[len(text) - 1][groups], dim=0))
        group_prompt = language.prompt(composition, wanted.group)
        index = next(i for i, token in enumerate(group_prompt) if language.is_group_token(token))
        weight += float(tempered[index - 1, group_prompt[index]])
        likelihood += float(
            torch.stack([log_p[i - 1, group_prompt[i]] for i in range(len(text), len(group_prompt))]).sum()
        )
    return weight if temperature else 0.0, likelihood


def _fits_context(model: Model, composition: Composition, wanted: CompositionConstraint) -> bool:
    """Return whether the context holds a sequence of this composition."""
    if len(model.language.prompt(composition, wanted.group)) >= model.config.context:
        return False
    counts, context = tuple(sorted(n for _, n in composition)), model.config.context
    return model.language.slides or text_length.fits_context(counts, context, wanted.group)


def _grammar(model: Model, wanted: CompositionConstraint) -> OrbitsGrammar | CifGrammar:
    """Return the grammar of the start of a sequence, up to its group."""
    grammar = factory.make_grammar(model.language.name, wanted=wanted)
    if grammar is None:
        raise AssertionError("no grammar for full constraints")
    return grammar
