"""State of one token sequence during sampling.

Does not depend on the network's computation or on the batch: see `decoder`.
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

NOT_FINITE = "the network's logits are not finite: its weights are broken"
Conditions = tuple[float | None, ...]
"""Values of the properties of a network, in their order, None where unknown; empty: all are unknown."""
_BLOCK = 64  # uniform numbers drawn at once
_STRATA = 2.0**8
"""A point draws tokens until the prefix that it has drawn is less probable than 1 / `_STRATA`. More strata
would multiply the rounding errors of logits, which depend on the batch."""
BELOW_ONE = 1.0 - 2.0**-40
"""Largest number that draws a token: numbers above it count as this."""


@dataclass(frozen=True)
class Stop:
    """When a sequence ends."""

    end_ids: tuple[int, ...]
    """Run of generated tokens that ends a sequence; tokens of the prompt do not count towards it."""
    slide: bool = False
    """At the end of the context: drop the oldest tokens and continue (True), or stop unfinished."""


class GrammarState(Protocol):
    """State of the grammar in one sequence."""

    def allowed(self) -> Sequence[int] | None:
        """Return the allowed next tokens, each once; None for all. Empty ends the sequence unfinished."""

    def advance(self, token: int) -> int | None:
        """Add the next token, one of those allowed.

        Returns:
            Number of last tokens, this one included, to remove and sample again; the state is already before
            them. 0 or None for none.
        """


class Grammar(Protocol):
    """Constrains the next token of a sequence."""

    def start(self, prompt: Sequence[int]) -> GrammarState:
        """Return a new state after `prompt`."""


@dataclass(frozen=True)
class Sample:
    """A sampled token sequence."""

    number: int
    """Index of its prompt."""
    index: int
    """With the seed, selects the random stream."""
    ids: tuple[int, ...]
    """Tokens of the prompt and the generated tokens, including the end."""
    n_prompt: int
    """Number of prompt tokens."""
    log_probs: tuple[float, ...]
    """Natural log-probability of each generated token, forced or not, at temperature 1 without grammar, top-k
    or top-p."""
    ended: bool
    """Whether the end was generated; False if context, token limit or grammar stopped the sequence."""
    forced: tuple[bool, ...] = ()
    """For each generated token, whether the grammar allowed no other."""

    @property
    def generated(self) -> tuple[int, ...]:
        """Tokens after the prompt."""
        return self.ids[self.n_prompt :]

    @property
    def log_likelihood(self) -> float:
        """Sum of `log_probs`."""
        return math.fsum(self.log_probs)


@dataclass(frozen=True)
class DecodingOptions:
    """How the tokens of a sequence are drawn; see `sample.sample`."""

    stop: Stop
    temperature: float = 1.0
    top_k: int | None = 10
    top_p: float | None = None
    max_new_tokens: int = 3000
    guidance: float = 1.0


@dataclass(frozen=True, eq=False)
class SequenceRequest:
    """A sequence to sample; see `sample.sample`.

    Attributes:
        context: tokens that the network reads before the prompt; the grammar does not see them.
        point: number in [0, 1) that draws the first tokens, see `RandomNumbers`; None: independent of others.
    """

    prompt: Sequence[int]
    options: DecodingOptions
    seed: int = 0
    index: int = 0
    grammar: Grammar | None = None
    conditions: Conditions = ()
    context: Sequence[int] = ()
    point: float | None = None


class RandomNumbers:
    """The random numbers in [0, 1) that draw the tokens of a sample.

    All first tokens are drawn from one number, the point: a token is drawn by the interval in which the
    point lies, and where it lies within the interval, from 0 to 1, draws the next token. When the tokens
    drawn so have a probability below 1 / `_STRATA`, independent numbers follow. So samples at points that are
    evenly spread begin in different ways, as far as the network finds several probable, and each of them is
    still a fair draw (arithmetic sampling: Vilnis and others, ICML 2023, arXiv 2210.15458).

    Args:
        stream: of independent numbers.
        point: None for independent numbers only.
    """

    __slots__ = ("_left", "_point", "_stream")

    def __init__(self, stream: Iterator[float], point: float | None = None) -> None:
        self._stream = stream
        self._point = 0.0 if point is None else point
        self._left = 0.0 if point is None else _STRATA

    def __next__(self) -> float:
        """Return the number of the next token."""
        return self._point if self._left > 1 else next(self._stream)

    def drew(self, start: float, length: float) -> None:
        """Take in what the last number drew: a token whose interval starts there and is that long."""
        if self._left > 1:
            self._point = min(max((self._point - start) / max(length, 1e-300), 0.0), BELOW_ONE)
            self._left *= length

    def skip(self) -> None:
        """Pass over the number of a token that is forced."""
        if self._left <= 1:
            next(self._stream)


@dataclass(slots=True)
class TokenSequence:
    """A sequence being sampled.

    Attributes:
        index: of its random stream.
        ids: context, prompt and generated tokens.
        n_prompt: tokens of context and prompt.
        n_context: of these, the first ones.
        numbers: one random number per token, forced or not.
        log_probs: of each generated token; NaN until the network has read the token before it.
        forced: for each generated token, whether it was forced.
        cached: number of tokens that the network has read.
        conditions: values of the properties of the network, see `Conditions`.
    """

    number: int
    index: int
    options: DecodingOptions
    ids: list[int]
    n_prompt: int
    state: GrammarState | None
    numbers: RandomNumbers
    log_probs: list[float] = field(default_factory=list)
    forced: list[bool] = field(default_factory=list)
    allowed: Sequence[int] | None = None
    cached: int = 0
    ended: bool = False
    finished: bool = False
    conditions: Conditions = ()
    n_context: int = 0

    @classmethod
    def from_request(cls, number: int, request: SequenceRequest) -> TokenSequence:
        """Return the sequence of a request, with context and prompt as its tokens."""
        return cls(
            number=number,
            index=request.index,
            options=request.options,
            ids=[*request.context, *request.prompt],
            n_prompt=len(request.context) + len(request.prompt),
            state=None if request.grammar is None else request.grammar.start(request.prompt),
            numbers=RandomNumbers(uniform_stream(request.seed, request.index), request.point),
            conditions=request.conditions,
            n_context=len(request.context),
        )

    def start(self, context: int) -> None:
        """Determine the allowed tokens after the prompt and append forced ones."""
        self._update_allowed()
        self._append_forced(context)

    def append_sampled(self, token: int, log_prob: float, context: int) -> None:
        """Append a sampled token and the forced tokens after it.

        Raises:
            CrystallmError: the log-probability is NaN.
        """
        if math.isnan(log_prob):
            raise CrystallmError(NOT_FINITE)
        # Only past the context limit: otherwise forced tokens were appended already.
        forced = self.allowed is not None and len(self.allowed) == 1
        self._append(token, log_prob, context, forced=forced)
        self._append_forced(context)

    def record_log_probs(self, first: int, log_probs: Sequence[float]) -> None:
        """Record the log-probabilities of forced tokens, from position `first` in `ids` on.

        Raises:
            CrystallmError: one is NaN.
        """
        if any(map(math.isnan, log_probs)):
            raise CrystallmError(NOT_FINITE)
        start = first - self.n_prompt
        self.log_probs[start : start + len(log_probs)] = log_probs

    @property
    def key(self) -> tuple[object, ...]:
        """What decides the keys and values of the tokens so far."""
        return self.conditions, self.n_prompt, *self.ids

    @property
    def unread(self) -> list[int]:
        """Tokens that the network reads next: all new ones, without the last of a finished sequence."""
        return self.ids[self.cached : -1] if self.finished else self.ids[self.cached :]

    @property
    def done(self) -> bool:
        """Whether the sequence is finished and all its log-probabilities are known."""
        return self.finished and not (self.log_probs and math.isnan(self.log_probs[-1]))

    def _update_allowed(self) -> None:
        self.allowed = None if self.state is None else self.state.allowed()
        limit = self.options.max_new_tokens
        if (self.allowed is not None and len(self.allowed) == 0) or len(self.log_probs) >= limit:
            self.finished = True

    def _append_forced(self, context: int) -> None:
        while not self.finished and self.allowed is not None and len(self.allowed) == 1:
            if len(self.ids) >= context:
                return  # beyond the context, tokens are appended one by one
            self.numbers.skip()  # each token uses one number, forced or not
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
        n_back = 0 if self.state is None else self.state.advance(token) or 0
        if n_back:
            if n_back > len(self.log_probs):
                raise AssertionError(
                    f"the grammar removes {n_back} tokens, of {len(self.log_probs)} generated"
                )
            del self.ids[-n_back:], self.log_probs[-n_back:], self.forced[-n_back:]
            self.cached = min(self.cached, len(self.ids) - 1)
        self._update_allowed()

    def to_sample(self) -> Sample:
        """Return the result of a sequence that is done."""
        return Sample(
            number=self.number,
            index=self.index,
            ids=tuple(self.ids[self.n_context :]),
            n_prompt=self.n_prompt - self.n_context,
            log_probs=tuple(self.log_probs),
            ended=self.ended,
            forced=tuple(self.forced),
        )


def uniform_stream(seed: int, index: int) -> Iterator[float]:
    """Yield the random numbers in [0, 1) of a sample, from a counter-based generator."""
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))
    while True:
        yield from generator.random(_BLOCK).tolist()


def check_options(network: GPT, options: DecodingOptions, batch_size: int) -> None:
    """Raise InputError if an option is out of range or the network is in training mode."""
    if network.training:
        raise InputError("the network is in training mode, its dropout on: call network.eval() first")
    temperature, top_k, top_p = options.temperature, options.top_k, options.top_p
    if not (math.isfinite(temperature) and temperature >= 0):
        raise InputError(f"{temperature=} must be 0 or more")
    if top_k is not None and top_k < 1:
        raise InputError(f"{top_k=} must be 1 or more, or None for all tokens")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"{top_p=} must lie in (0, 1], or be None for all tokens")
    if not math.isfinite(options.guidance) or options.guidance < 0:
        raise InputError(f"guidance={options.guidance} must be 0 or more")
    for name, value in (("batch_size", batch_size), ("max_new_tokens", options.max_new_tokens)):
        if value < 1:
            raise InputError(f"{name}={value} must be 1 or more")
    if not options.stop.end_ids:
        raise InputError("stop.end_ids is empty: give the tokens that end a sequence")


def check_prompt(network: GPT, number: int, request: SequenceRequest, *, finished: bool = False) -> None:
    """Raise InputError if a prompt cannot be continued. Does not check it against the grammar.

    Args:
        finished: whether no token is to be generated, so that the prompt may fill the context.
    """
    prompt = request.prompt
    for value in (request.seed, request.index):
        if not 0 <= value < 2**64:
            raise InputError(f"seed and indices must lie in [0, 2^64), not {value}")
    context, n_vocabulary = network.config.context, network.config.vocab_size
    limit = context if request.options.stop.slide or finished else context - 1
    if not prompt:
        raise InputError(f"prompt {number} is empty: give at least one token")
    n_prompt = len(request.context) + len(prompt)
    if n_prompt > limit:
        raise InputError(f"prompt {number} has {n_prompt} tokens, the context of {context} takes {limit}")
    if request.conditions and len(request.conditions) != len(network.config.condition_scales):
        raise InputError(
            f"{len(request.conditions)} conditions for a network with {len(network.config.condition_scales)}"
        )
    if min(prompt) < 0 or max(prompt) >= n_vocabulary:
        raise InputError(f"prompt {number} has a token outside 0 ... {n_vocabulary - 1}")
