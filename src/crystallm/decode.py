"""Sampling from a network: batched, with a key-value cache, one random stream a sample, and rules if given.

Knows tokens, not crystals: which run of tokens ends a text is told by a `Stop`, which tokens may come next by
a `Rules` object. What a token means, how a prompt is made and what becomes of a sample is others' business.

A sample depends on (seed, index), on its prompt and on the options alone: in float32 it is the same whatever
else is in its batch, but for the rounding of matrix products (relative 1e-6), which may move a choice that
lies so close to the border between two tokens.

Letters of shapes: N rows being decoded, V vocabulary.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from crystallm.errors import CrystallmError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import Tensor

    from crystallm.model import GPT, KVCache

    Progress = Callable[[int, int], None]

_FIRST_CAPACITY = 128  # cached tokens a row; doubles when a row needs more
_PREFILL_ROWS = 32  # distinct prompts that go through the network together
_PREFILL_TOKENS = 8192  # of these, with padding, at most
_KEPT_PREFILLS = 64  # distinct prompts whose keys and values are kept for samples to come
_DRAWS = 64  # uniform numbers drawn at a time
_BELOW_ONE = 1.0 - 2.0**-40


@dataclass(frozen=True)
class Stop:
    """When a text ends."""

    end_ids: tuple[int, ...]
    """The run of tokens that, generated, ends a text; tokens of the prompt do not count towards it."""
    slide: bool = False
    """At the end of the context: drop the oldest tokens and go on (True), or leave the text unfinished."""


class RowState(Protocol):
    """What the rules know about one text while it is written."""

    def allowed(self) -> Sequence[int] | None:
        """Tokens that may come next, each once; None for all. None left: the text stays unfinished."""

    def advance(self, token: int) -> int | None:
        """Take note of the next token, one of those allowed.

        Returns:
            How many of the last tokens, this one among them, are to be taken back and written anew; the state
            stands before them already. 0 or None for none.
        """


class Rules(Protocol):
    """Which tokens may come next in a text."""

    def start(self, prompt: Sequence[int]) -> RowState:
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

    @property
    def generated(self) -> tuple[int, ...]:
        """Tokens behind the prompt."""
        return self.ids[self.n_prompt :]

    @property
    def log_likelihood(self) -> float:
        """Sum of `log_probs`."""
        return math.fsum(self.log_probs)


def sample(
    network: GPT,
    prompts: Sequence[Sequence[int]],
    *,
    stop: Stop,
    temperature: float = 1.0,
    top_k: int | None = 10,
    top_p: float | None = None,
    seed: int = 0,
    indices: Sequence[int] | None = None,
    batch_size: int = 32,
    max_new_tokens: int = 3000,
    rules: Rules | None = None,
    progress: Progress | None = None,
) -> Iterator[Sample]:
    """Write one text behind each prompt.

    Args:
        network: in evaluation mode.
        prompts: tokens; repeat a prompt for several samples of it, side by side, and it is read once.
        stop: when a text ends.
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_k: sample from the k likeliest of the allowed tokens; None for all.
        top_p: sample from the smallest set of likeliest tokens that holds this probability; None for all.
        seed: with a sample's index, decides its random numbers.
        indices: one for each prompt; 0, 1, ... if None.
        batch_size: texts written at a time; a finished one makes place for the next.
        max_new_tokens: a text that has so many and no end stays unfinished.
        rules: which tokens may come next; None for all.
        progress: called after each finished text with the number of texts and of generated tokens so far.

    Returns:
        An iterator over the samples in the order of the prompts; the work is done as it is drawn from.

    Raises:
        InputError: an option out of its range; a prompt that is empty, has foreign tokens, fills the context.
        CrystallmError: while drawing, if the network's numbers are not finite.
    """
    _check(
        network,
        prompts,
        stop=stop,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        indices=indices,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
    )
    streams = range(len(prompts)) if indices is None else indices
    options = _Options(stop, temperature, top_k, top_p, max_new_tokens)
    rows = (
        _Row(
            number=number,
            index=index,
            ids=list(prompt),
            n_prompt=len(prompt),
            state=None if rules is None else rules.start(prompt),
            uniforms=_uniforms(seed, index),
        )
        for number, (prompt, index) in enumerate(zip(prompts, streams, strict=True))
    )
    return _generate(
        _Decoder(network, options, min(batch_size, max(len(prompts), 1))), rows, prompts, progress
    )


def choose(
    logits: Tensor,
    uniforms: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None,
    top_p: float | None = None,
) -> Tensor:
    """Draw one token a row, by inversion of the cumulative distribution in the order of the tokens.

    Args:
        logits: (N, V); -inf where a token is not allowed. Each row needs a finite one.
        uniforms: (N,) float64 in [0, 1).
        temperature: as for `sample`, as are the next two; applied in the order k, temperature, p.
        top_k: tokens that tie with the k-th stay.
        top_p: of the probabilities at this temperature.

    Returns:
        (N,) int64 tokens.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    if top_k is not None and top_k < logits.shape[-1]:
        kth = torch.topk(logits, top_k, dim=-1).values[:, -1:]  # (N, 1)
        logits = logits.masked_fill(logits < kth, -math.inf)
    # The maximum first, so that a tiny temperature cannot overflow.
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / temperature
    probabilities = torch.softmax(logits, dim=-1, dtype=torch.float64)  # (N, V)
    if top_p is not None and top_p < 1:
        ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
        beyond = ranked.cumsum(dim=-1) - ranked >= top_p  # the likeliest stays: nothing is before it
        probabilities = probabilities.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), 0.0)
    cumulative = probabilities.cumsum(dim=-1)
    thresholds = uniforms.clamp(max=_BELOW_ONE)[:, None] * cumulative[:, -1:]
    return (cumulative <= thresholds).sum(dim=-1)


def mask_logits(logits: Tensor, allowed: Sequence[Sequence[int] | None]) -> Tensor:
    """Set to -inf what is not allowed; (N, V) logits and for each row its allowed tokens, None for all."""
    n_rows, n_tokens = logits.shape
    bound = [row for row, tokens in enumerate(allowed) if tokens is not None]
    if not bound:
        return logits
    flat = np.concatenate([np.asarray(allowed[row], dtype=np.int64) + row * n_tokens for row in bound])
    keep = torch.ones((n_rows, n_tokens), dtype=torch.bool)
    keep[bound] = False
    keep.view(-1).index_fill_(0, torch.from_numpy(flat), value=True)
    return logits.masked_fill(~keep.to(logits.device), -math.inf)


@dataclass(frozen=True)
class _Options:
    stop: Stop
    temperature: float
    top_k: int | None
    top_p: float | None
    max_new_tokens: int


@dataclass(slots=True)
class _Row:
    """A text being written."""

    number: int
    index: int
    ids: list[int]
    n_prompt: int
    state: RowState | None
    uniforms: Iterator[float]
    log_probs: list[float] = field(default_factory=list)
    allowed: Sequence[int] | None = None
    ended: bool = False
    finished: bool = False
    rewound: bool = False

    def look(self, limit: int) -> None:
        """Ask the rules what may come next, and see whether the text has to be left here."""
        self.allowed = None if self.state is None else self.state.allowed()
        if (self.allowed is not None and len(self.allowed) == 0) or len(self.log_probs) >= limit:
            self.finished = True

    def append(self, token: int, log_prob: float, options: _Options, context: int) -> None:
        if math.isnan(log_prob):
            raise CrystallmError("the network's logits are not finite: its weights are broken")
        self.ids.append(token)
        self.log_probs.append(log_prob)
        end = options.stop.end_ids
        n_end = len(end)
        if token == end[-1] and len(self.log_probs) >= n_end and tuple(self.ids[-n_end:]) == end:
            self.ended = self.finished = True
            return
        if len(self.ids) >= context and not options.stop.slide:
            self.finished = True
            return
        back = 0 if self.state is None else self.state.advance(token) or 0
        if back:
            if back > len(self.log_probs):
                raise AssertionError(f"rules take back {back} tokens of {len(self.log_probs)} written")
            del self.ids[-back:], self.log_probs[-back:]
            self.rewound = True
        self.look(options.max_new_tokens)

    def to_sample(self) -> Sample:
        return Sample(
            number=self.number,
            index=self.index,
            ids=tuple(self.ids),
            n_prompt=self.n_prompt,
            log_probs=tuple(self.log_probs),
            ended=self.ended,
        )


class _Decoder:
    """Rows being written together, their cache, and the prompts that have been read."""

    def __init__(self, network: GPT, options: _Options, batch_size: int) -> None:
        self.network = network
        self.options = options
        self.batch_size = batch_size
        self.context = network.config.context
        self.device = network.transformer.wte.weight.device
        self.rows: list[_Row] = []
        self.cache = network.new_cache(batch_size, min(_FIRST_CAPACITY, self.context))
        self.cache.set_lengths([])
        self._prefills: OrderedDict[tuple[int, ...], tuple[KVCache, int]] = OrderedDict()

    def put(self, place: int, row: _Row, upcoming: Iterable[Sequence[int]]) -> None:
        """Begin a row at `place` with its prompt cached but for the last token, which the next step reads."""
        source, source_row = self._prefill(tuple(row.ids[:-1]), upcoming)
        self._make_room(len(row.ids))
        self.cache.fill_row(place, source, source_row)
        self.rows[place : place + 1] = [row]

    def drop(self, places: Sequence[int]) -> None:
        """Take finished rows out."""
        self.rows = [self.rows[place] for place in self.cache.drop_rows(places)]

    def step(self) -> None:
        """Write one token in every row."""
        self._make_room(max(self.cache.lengths) + 1)
        inputs = torch.tensor([[row.ids[-1]] for row in self.rows], device=self.device)  # (N, 1)
        with torch.inference_mode():
            features = self.network.features(inputs, cache=self.cache)
            logits = self.network.lm_head(features[:, -1])  # (N, V)
            self._write(logits, self.rows)
        if any(row.rewound for row in self.rows):
            # What is cached must end before the last token, which the next step reads.
            ends = [len(row.ids) - 1 for row in self.rows]
            self.cache.set_lengths([min(pair) for pair in zip(ends, self.cache.lengths, strict=True)])
            for row in self.rows:
                row.rewound = False

    def slide(self, row: _Row) -> None:
        """Finish a text that has outgrown the context, with the last of its tokens as input at each step.

        Positions shift by one a step, so nothing cached stays right, and every step reads the whole window.
        """
        while not row.finished:
            window = torch.tensor([row.ids[-self.context :]], device=self.device)  # (1, context)
            with torch.inference_mode():
                self._write(self.network.lm_head(self.network.features(window)[:, -1]), [row])

    def _write(self, logits: Tensor, rows: Sequence[_Row]) -> None:
        logits = logits.float()
        options = self.options
        uniforms = torch.tensor([next(row.uniforms) for row in rows], dtype=torch.float64)
        tokens = choose(
            mask_logits(logits, [row.allowed for row in rows]),
            uniforms.to(self.device),
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
        )
        log_probs = torch.log_softmax(logits, dim=-1).gather(1, tokens[:, None])[:, 0]
        for row, token, log_prob in zip(rows, tokens.tolist(), log_probs.tolist(), strict=True):
            row.append(token, log_prob, options, self.context)

    def _make_room(self, n_tokens: int) -> None:
        if n_tokens > self.cache.capacity:
            self.cache.grow(min(max(2 * self.cache.capacity, n_tokens), self.context))

    def _prefill(self, tokens: tuple[int, ...], upcoming: Iterable[Sequence[int]]) -> tuple[KVCache, int]:
        """Keys and values of a prompt; prompts that come up next are read along with it."""
        if tokens not in self._prefills:
            group = [tokens]
            longest = len(tokens)
            for prompt in upcoming:
                other = tuple(prompt[:-1])
                longest = max(longest, len(other))
                if len(group) >= _PREFILL_ROWS or longest * (len(group) + 1) > _PREFILL_TOKENS:
                    break
                if other not in self._prefills and other not in group:
                    group.append(other)
            self._read(group)
        self._prefills.move_to_end(tokens)
        return self._prefills[tokens]

    def _read(self, group: Sequence[tuple[int, ...]]) -> None:
        lengths = [len(tokens) for tokens in group]
        longest = max(lengths)
        cache = self.network.new_cache(len(group), longest)
        if longest:
            # Padding stands behind the tokens, where causal attention does not look, and is forgotten.
            padded = torch.tensor([[*tokens, *[0] * (longest - len(tokens))] for tokens in group])
            with torch.inference_mode():
                self.network.features(padded.to(self.device), cache=cache)
            cache.set_lengths(lengths)
        self._prefills.update({tokens: (cache, row) for row, tokens in enumerate(group)})
        while len(self._prefills) > max(_KEPT_PREFILLS, len(group)):
            self._prefills.popitem(last=False)


def _generate(
    decoder: _Decoder, rows: Iterator[_Row], prompts: Sequence[Sequence[int]], progress: Progress | None
) -> Iterator[Sample]:
    finished: dict[int, Sample] = {}
    n_finished = n_tokens = n_given = 0
    more = True
    while more or decoder.rows:
        done: list[_Row] = []
        open_places = deque(place for place, row in enumerate(decoder.rows) if row.finished)
        done.extend(decoder.rows[place] for place in open_places)
        while more and (open_places or len(decoder.rows) < decoder.batch_size):
            row = next(rows, None)
            if row is None:
                more = False
                break
            row.look(decoder.options.max_new_tokens)
            if row.finished:
                done.append(row)
                continue
            place = open_places.popleft() if open_places else len(decoder.rows)
            # No further than the samples that will soon have a place.
            decoder.put(place, row, prompts[row.number + 1 : row.number + 1 + _PREFILL_ROWS])
        if open_places:
            decoder.drop(open_places)
        if decoder.rows:
            decoder.step()
        outgrown = [row for row in decoder.rows if not row.finished and len(row.ids) > decoder.context]
        for row in outgrown:
            decoder.slide(row)
        for row in done:
            finished[row.number] = row.to_sample()
            n_finished += 1
            n_tokens += len(row.log_probs)
            if progress is not None:
                progress(n_finished, n_tokens)
        while n_given in finished:
            yield finished.pop(n_given)
            n_given += 1


def _uniforms(seed: int, index: int) -> Iterator[float]:
    """The random stream of a sample, from a counter-based generator: it depends on nothing else."""
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))
    while True:
        yield from generator.random(_DRAWS).tolist()


def _check(
    network: GPT,
    prompts: Sequence[Sequence[int]],
    *,
    stop: Stop,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int,
    indices: Sequence[int] | None,
    batch_size: int,
    max_new_tokens: int,
) -> None:
    """Refuse what cannot be sampled."""
    if network.training:
        raise InputError("the network is in training mode, its dropout on: call network.eval() first")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise InputError(f"{temperature=} must be 0 or more")
    if top_k is not None and top_k < 1:
        raise InputError(f"{top_k=} must be 1 or more, or None for all tokens")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"{top_p=} must lie in (0, 1], or be None for all tokens")
    for name, value in (("batch_size", batch_size), ("max_new_tokens", max_new_tokens)):
        if value < 1:
            raise InputError(f"{name}={value} must be 1 or more")
    if not stop.end_ids:
        raise InputError("stop.end_ids is empty: say which tokens end a text")
    for value in (seed, *(indices or ())):
        if not 0 <= value < 2**64:
            raise InputError(f"seed and indices must lie in [0, 2^64), not {value}")
    if indices is not None and len(indices) != len(prompts):
        raise InputError(f"{len(indices)} indices for {len(prompts)} prompts: give one for each")
    context, n_vocabulary = network.config.context, network.config.vocab_size
    room = context if stop.slide else context - 1
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise InputError(f"prompt {number} is empty: give at least one token")
        if len(prompt) > room:
            raise InputError(
                f"prompt {number} has {len(prompt)} tokens, the context of {context} takes {room}"
            )
        if min(prompt) < 0 or max(prompt) >= n_vocabulary:
            raise InputError(f"prompt {number} has a token outside 0 ... {n_vocabulary - 1}")
