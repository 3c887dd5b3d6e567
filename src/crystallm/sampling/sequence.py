"""One text that is being written: what decides it, and what is there of it so far.

Knows tokens and random numbers; refuses to know networks' arithmetic and which texts are written together:
see `decode`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from crystallm.errors import CrystallmError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crystallm.network.transformer import GPT


BROKEN = "the network's logits are not finite: its weights are broken"

_DRAWS = 64  # uniform numbers drawn at a time


@dataclass(frozen=True)
class Stop:
    """When a text ends."""

    end_ids: tuple[int, ...]
    """The run of tokens that, generated, ends a text; tokens of the prompt do not count towards it."""
    slide: bool = False
    """At the end of the context: drop the oldest tokens and go on (True), or leave the text unfinished."""


class GrammarState(Protocol):
    """What the rules know about one text while it is written."""

    def allowed(self) -> Sequence[int] | None:
        """Tokens that may come next, each once; None for all. None left: the text stays unfinished."""

    def advance(self, token: int) -> int | None:
        """Take note of the next token, one of those allowed.

        Returns:
            How many of the last tokens, this one among them, are to be taken back and written anew; the state
            stands before them already. 0 or None for none.
        """


class Grammar(Protocol):
    """Which tokens may come next in a text."""

    def start(self, prompt: Sequence[int]) -> GrammarState:
        """A fresh state for a text that begins with `prompt`."""


@dataclass(frozen=True)
class Sample:
    """One text that the network wrote."""

    number: int
    """Which of the prompts, counted from 0."""
    index: int
    """With the seed, names the random stream."""
    ids: tuple[int, ...]
    """Tokens of prompt, text and end."""
    n_prompt: int
    """How many of them are the prompt's."""
    log_probs: tuple[float, ...]
    """Natural logarithm of each generated token's probability in the network at temperature 1, without rules,
    top-k or top-p; forced tokens count like the others."""
    ended: bool
    """Whether the end was written; False if context, limit of tokens or rules cut the text off."""
    forced: tuple[bool, ...] = ()
    """For each generated token, whether the rules left no other."""

    @property
    def generated(self) -> tuple[int, ...]:
        """Tokens behind the prompt."""
        return self.ids[self.n_prompt :]

    @property
    def log_likelihood(self) -> float:
        """Sum of `log_probs`."""
        return math.fsum(self.log_probs)


@dataclass(frozen=True)
class Options:
    """How a text is drawn; as for `sample`."""

    stop: Stop
    temperature: float = 1.0
    top_k: int | None = 10
    top_p: float | None = None
    max_new_tokens: int = 3000


@dataclass(frozen=True, eq=False)
class SequenceRequest:
    """A text that is to be written, with all that decides it; as for `sample`."""

    prompt: Sequence[int]
    options: Options
    seed: int = 0
    index: int = 0
    rules: Grammar | None = None


@dataclass(slots=True)
class TokenSequence:
    """A text being written.

    Attributes:
        number: of its prompt.
        index: of its random stream.
        options: how it is drawn.
        ids: prompt and text.
        n_prompt: tokens of the prompt.
        state: what the rules know of it.
        uniforms: a random number for each token, forced or not.
        log_probs: of each token behind the prompt; NaN until the network has seen the one before it.
        forced: for each token behind the prompt, whether it had to come.
        allowed: what may come next, None for all.
        cached: tokens that the network has read.
        ended: whether its end was written.
        finished: whether nothing is to be written any more.
    """

    number: int
    index: int
    options: Options
    ids: list[int]
    n_prompt: int
    state: GrammarState | None
    uniforms: Iterator[float]
    log_probs: list[float] = field(default_factory=list)
    forced: list[bool] = field(default_factory=list)
    allowed: Sequence[int] | None = None
    cached: int = 0
    ended: bool = False
    finished: bool = False

    @classmethod
    def of(cls, number: int, draft: SequenceRequest) -> TokenSequence:
        """The row that begins with a draft's prompt."""
        return cls(
            number=number,
            index=draft.index,
            options=draft.options,
            ids=list(draft.prompt),
            n_prompt=len(draft.prompt),
            state=None if draft.rules is None else draft.rules.start(draft.prompt),
            uniforms=uniforms_of(draft.seed, draft.index),
        )

    def begin(self, context: int) -> None:
        """Look what may come behind the prompt, and write what must."""
        self._look()
        self._write_forced(context)

    def write(self, token: int, log_prob: float, context: int) -> None:
        """Write the token that was chosen, and behind it what must come."""
        if math.isnan(log_prob):
            raise CrystallmError(BROKEN)
        alone = self.allowed is not None and len(self.allowed) == 1  # so it is beyond the context
        self._append(token, log_prob, context, forced=alone)
        self._write_forced(context)

    def learn(self, first: int, log_probs: Sequence[float]) -> None:
        """Take note of the log-probabilities of tokens that had to come, from place `first` in `ids` on."""
        if any(map(math.isnan, log_probs)):
            raise CrystallmError(BROKEN)
        start = first - self.n_prompt
        self.log_probs[start : start + len(log_probs)] = log_probs

    @property
    def unread(self) -> list[int]:
        """Tokens that the network is to read next: all new ones, but for the last of a finished text."""
        return self.ids[self.cached : -1] if self.finished else self.ids[self.cached :]

    @property
    def done(self) -> bool:
        """Whether the text is finished and the probabilities of all its tokens are known."""
        return self.finished and not (self.log_probs and math.isnan(self.log_probs[-1]))

    def _look(self) -> None:
        """Ask the rules what may come next, and see whether the text has to be left here."""
        self.allowed = None if self.state is None else self.state.allowed()
        limit = self.options.max_new_tokens
        if (self.allowed is not None and len(self.allowed) == 0) or len(self.log_probs) >= limit:
            self.finished = True

    def _write_forced(self, context: int) -> None:
        while not self.finished and self.allowed is not None and len(self.allowed) == 1:
            if len(self.ids) >= context:
                return  # what outgrows the context is written token by token
            next(self.uniforms)  # so that each token has its own, whatever the others were
            self._append(self.allowed[0], math.nan, context, forced=True)

    def _append(self, token: int, log_prob: float, context: int, *, forced: bool) -> None:
        self.ids.append(token)
        self.log_probs.append(log_prob)
        self.forced.append(forced)
        end = self.options.stop.end_ids
        n_end = len(end)
        if token == end[-1] and len(self.log_probs) >= n_end and tuple(self.ids[-n_end:]) == end:
            self.ended = self.finished = True
            return
        if len(self.ids) >= context and not self.options.stop.slide:
            self.finished = True
            return
        back = 0 if self.state is None else self.state.advance(token) or 0
        if back:
            if back > len(self.log_probs):
                raise AssertionError(f"rules take back {back} tokens of {len(self.log_probs)} written")
            del self.ids[-back:], self.log_probs[-back:], self.forced[-back:]
            self.cached = min(self.cached, len(self.ids) - 1)
        self._look()

    def to_sample(self) -> Sample:
        """What was written, once it is done."""
        return Sample(
            number=self.number,
            index=self.index,
            ids=tuple(self.ids),
            n_prompt=self.n_prompt,
            log_probs=tuple(self.log_probs),
            ended=self.ended,
            forced=tuple(self.forced),
        )


def uniforms_of(seed: int, index: int) -> Iterator[float]:
    """The random stream of a sample, from a counter-based generator: it depends on nothing else."""
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))
    while True:
        yield from generator.random(_DRAWS).tolist()


def check_options(network: GPT, options: Options, batch_size: int) -> None:
    """Refuse how nothing can be sampled."""
    if network.training:
        raise InputError("the network is in training mode, its dropout on: call network.eval() first")
    temperature, top_k, top_p = options.temperature, options.top_k, options.top_p
    if not (math.isfinite(temperature) and temperature >= 0):
        raise InputError(f"{temperature=} must be 0 or more")
    if top_k is not None and top_k < 1:
        raise InputError(f"{top_k=} must be 1 or more, or None for all tokens")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"{top_p=} must lie in (0, 1], or be None for all tokens")
    for name, value in (("batch_size", batch_size), ("max_new_tokens", options.max_new_tokens)):
        if value < 1:
            raise InputError(f"{name}={value} must be 1 or more")
    if not options.stop.end_ids:
        raise InputError("stop.end_ids is empty: say which tokens end a text")


def check_text(network: GPT, number: int, draft: SequenceRequest, *, finished: bool = False) -> None:
    """Refuse what cannot be continued.

    Args:
        network: that is to continue it.
        number: by which errors name it.
        draft: its rules are not asked.
        finished: whether nothing is to be written behind it, so that it may fill the context.
    """
    prompt = draft.prompt
    for value in (draft.seed, draft.index):
        if not 0 <= value < 2**64:
            raise InputError(f"seed and indices must lie in [0, 2^64), not {value}")
    context, n_vocabulary = network.config.context, network.config.vocab_size
    room = context if draft.options.stop.slide or finished else context - 1
    if not prompt:
        raise InputError(f"prompt {number} is empty: give at least one token")
    if len(prompt) > room:
        raise InputError(f"prompt {number} has {len(prompt)} tokens, the context of {context} takes {room}")
    if min(prompt) < 0 or max(prompt) >= n_vocabulary:
        raise InputError(f"prompt {number} has a token outside 0 ... {n_vocabulary - 1}")
