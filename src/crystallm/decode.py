"""Sampling from a network: batched, with a key-value cache, one random stream a sample, and rules if given.

Where the rules leave one token only, it is written without asking the network, which reads such runs in one
pass together with the token before them; what rows have in front of the first choice is read once for all
samples of a prompt. A finished row makes place for the next.

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

from crystallm import drawing, ragged
from crystallm.drawing import choose, log_probs, mask_logits
from crystallm.errors import CrystallmError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from crystallm.model import GPT, KVCache

    Progress = Callable[[int, int], None]

__all__ = ["RowState", "Rules", "Sample", "Stop", "Writer", "choose", "mask_logits", "sample"]

_FIRST_CAPACITY = 128  # cached tokens a row; doubles when a row needs more
_PREFILL_ROWS = 32  # distinct beginnings that go through the network together
_PREFILL_TOKENS = 8192  # of these, with padding, at most
_KEPT_PREFILLS = 64  # distinct beginnings whose keys and values are kept for samples to come
_BROKEN = "the network's logits are not finite: its weights are broken"
_DRAWS = 64  # uniform numbers drawn at a time


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
    return _generate(_Decoder(network, options, min(batch_size, max(len(prompts), 1))), rows, progress)


class Writer:
    """A network that writes again and again: a beginning that it has read is not read a second time.

    Args:
        network: in evaluation mode.
        stop: when a text ends.
        temperature: as for `sample`, as are all others.
        top_k: likewise.
        top_p: likewise.
        batch_size: likewise.
        max_new_tokens: likewise; what a beginning holds behind the prompt counts.
        rules: likewise.

    Raises:
        InputError: an option out of its range.
    """

    def __init__(
        self,
        network: GPT,
        *,
        stop: Stop,
        temperature: float = 1.0,
        top_k: int | None = 10,
        top_p: float | None = None,
        batch_size: int = 32,
        max_new_tokens: int = 3000,
        rules: Rules | None = None,
    ) -> None:
        self._network = network
        self._options = _Options(stop, temperature, top_k, top_p, max_new_tokens)
        self._batch_size = batch_size
        self._check([], 0, None)
        self._rules = rules
        self._decoder = _Decoder(network, self._options, batch_size)

    def sample(
        self, beginnings: Sequence[tuple[Sequence[int], int]], *, seed: int, indices: Sequence[int]
    ) -> Iterator[Sample]:
        """Write one text behind each beginning; one that is a whole text stays as it is.

        Args:
            beginnings: tokens, and how many of them are the prompt's: the log-probabilities of the others
                are those of the text.
            seed: as for `sample`.
            indices: one for each beginning.

        Returns:
            As for `sample`. It has to be drawn from to its end before the writer is asked again.

        Raises:
            InputError: a beginning that is empty, has foreign tokens, fills the context, breaks the rules.
        """
        self._check([ids for ids, _ in beginnings], seed, indices)
        end = self._options.stop.end_ids
        rows = []
        for number, ((ids, n_prompt), index) in enumerate(zip(beginnings, indices, strict=True)):
            ended = len(ids) - n_prompt >= len(end) and tuple(ids[-len(end) :]) == end
            row = _Row(
                number=number,
                index=index,
                ids=list(ids),
                n_prompt=n_prompt,
                state=None if self._rules is None else self._rules.start(ids),
                uniforms=_uniforms(seed, index),
                log_probs=[math.nan] * (len(ids) - n_prompt),
                ended=ended,
                finished=ended,
            )
            rows.append(row)
        return _generate(self._decoder, iter(rows), None)

    def peek(self, beginnings: Sequence[tuple[Sequence[int], int]]) -> Tensor:
        """Log-probabilities (N, V) of what may come behind each beginning, without temperature or rules.

        Args:
            beginnings: as for `sample`, each shorter than the context.

        Raises:
            InputError: as for `sample`.
            CrystallmError: the network's numbers are not finite.
        """
        self._check([ids for ids, _ in beginnings], 0, None)
        rows = [
            _Row(number=i, index=i, ids=list(ids), n_prompt=n_prompt, state=None, uniforms=iter(()))
            for i, (ids, n_prompt) in enumerate(beginnings)
        ]
        size = self._batch_size
        found = [self._decoder.peek(rows[k : k + size]) for k in range(0, len(rows), size)]
        if not found:
            return torch.empty(0, self._network.config.vocab_size)
        logits = torch.cat(found).log_softmax(dim=-1)
        if bool(logits.isnan().any()):
            raise CrystallmError(_BROKEN)
        return logits

    def _check(self, prompts: Sequence[Sequence[int]], seed: int, indices: Sequence[int] | None) -> None:
        options = self._options
        _check(
            self._network,
            prompts,
            stop=options.stop,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            seed=seed,
            indices=indices,
            batch_size=self._batch_size,
            max_new_tokens=options.max_new_tokens,
        )


@dataclass(frozen=True)
class _Options:
    stop: Stop
    temperature: float
    top_k: int | None
    top_p: float | None
    max_new_tokens: int


@dataclass(slots=True)
class _Row:
    """A text being written.

    Attributes:
        number: of its prompt.
        index: of its random stream.
        ids: prompt and text.
        n_prompt: tokens of the prompt.
        state: what the rules know of it.
        uniforms: a random number for each token, forced or not.
        log_probs: of each token behind the prompt; NaN until the network has seen the one before it.
        allowed: what may come next, None for all.
        cached: tokens that the network has read.
        ended: whether its end was written.
        finished: whether nothing is to be written any more.
    """

    number: int
    index: int
    ids: list[int]
    n_prompt: int
    state: RowState | None
    uniforms: Iterator[float]
    log_probs: list[float] = field(default_factory=list)
    allowed: Sequence[int] | None = None
    cached: int = 0
    ended: bool = False
    finished: bool = False

    def begin(self, options: _Options, context: int) -> None:
        """Look what may come behind the prompt, and write what must."""
        self._look(options.max_new_tokens)
        self._write_forced(options, context)

    def write(self, token: int, log_prob: float, options: _Options, context: int) -> None:
        """Write the token that was chosen, and behind it what must come."""
        if math.isnan(log_prob):
            raise CrystallmError(_BROKEN)
        self._append(token, log_prob, options, context)
        self._write_forced(options, context)

    def learn(self, first: int, log_probs: Sequence[float]) -> None:
        """Take note of the log-probabilities of tokens that had to come, from place `first` in `ids` on."""
        if any(map(math.isnan, log_probs)):
            raise CrystallmError(_BROKEN)
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

    def _look(self, limit: int) -> None:
        """Ask the rules what may come next, and see whether the text has to be left here."""
        self.allowed = None if self.state is None else self.state.allowed()
        if (self.allowed is not None and len(self.allowed) == 0) or len(self.log_probs) >= limit:
            self.finished = True

    def _write_forced(self, options: _Options, context: int) -> None:
        while not self.finished and self.allowed is not None and len(self.allowed) == 1:
            if len(self.ids) >= context:
                return  # what outgrows the context is written token by token
            next(self.uniforms)  # so that each token has its own, whatever the others were
            self._append(self.allowed[0], math.nan, options, context)

    def _append(self, token: int, log_prob: float, options: _Options, context: int) -> None:
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
            self.cached = min(self.cached, len(self.ids) - 1)
        self._look(options.max_new_tokens)

    def to_sample(self) -> Sample:
        return Sample(
            number=self.number,
            index=self.index,
            ids=tuple(self.ids),
            n_prompt=self.n_prompt,
            log_probs=tuple(self.log_probs),
            ended=self.ended,
        )


@dataclass(frozen=True)
class _Read:
    """A beginning of texts that the network has read: all tokens but the last.

    Attributes:
        cache, row: where its keys and values are.
        log_probs: of its tokens behind the prompt.
    """

    cache: KVCache
    row: int
    log_probs: list[float]


class _Decoder:
    """Rows being written together, their cache, and the beginnings that have been read."""

    def __init__(self, network: GPT, options: _Options, batch_size: int) -> None:
        self.network = network
        self.options = options
        self.batch_size = batch_size
        self.context = network.config.context
        self.device = network.transformer.wte.weight.device
        self.rows: list[_Row] = []
        self.cache = network.new_cache(batch_size, min(_FIRST_CAPACITY, self.context))
        self.cache.set_lengths([])
        self._read: OrderedDict[tuple[int, ...], _Read] = OrderedDict()
        self._reader = ragged.Reader(network)
        self._chooser = drawing.Chooser(
            network.config.vocab_size,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
        )

    def begin(self, row: _Row, upcoming: Iterable[_Row]) -> _Read:
        """Have the network read all that a row has but its last token, and that of others to come."""
        key = (row.n_prompt, *row.ids)
        if key not in self._read:
            group = {key: row}
            longest = len(row.ids)
            for other in upcoming:
                longest = max(longest, len(other.ids))
                if len(group) >= _PREFILL_ROWS or longest * (len(group) + 1) > _PREFILL_TOKENS:
                    break
                if (other.n_prompt, *other.ids) not in self._read:
                    group.setdefault((other.n_prompt, *other.ids), other)
            self._prefill(group)
        self._read.move_to_end(key)
        found = self._read[key]
        row.cached = len(row.ids) - 1
        row.learn(row.n_prompt, found.log_probs)
        return found

    def put(self, place: int, row: _Row, begun: _Read) -> None:
        """Give a row that has begun a place in the cache."""
        self._make_room(len(row.ids))
        self.cache.fill_row(place, begun.cache, begun.row)
        self.rows[place : place + 1] = [row]

    def drop(self, places: Sequence[int]) -> None:
        """Take finished rows out."""
        self.rows = [self.rows[place] for place in self.cache.drop_rows(places)]

    def step(self) -> None:
        """Read what is unread in every row; write a token and those that must follow where one is due."""
        tokens = [row.unread for row in self.rows]
        before = [row.cached for row in self.rows]
        self._make_room(max(cached + len(run) for cached, run in zip(before, tokens, strict=True)))
        with torch.inference_mode():
            self.cache.set_lengths(before)
            runs = ragged.runs_of(tokens, self.cache)
            logits = self._reader.logits(self._reader.features(runs, self.cache))  # (N, V)
            targets = [self._known(row, run) for row, run in zip(self.rows, tokens, strict=True)]
            ends = [start + len(run) - 1 for start, run in zip(runs.starts, tokens, strict=True)]
            open_rows = [place for place, row in enumerate(self.rows) if not row.finished]
            last = torch.tensor([ends[place] for place in open_rows], device=self.device, dtype=torch.int64)
            chosen = self._choose(logits[last], [self.rows[place] for place in open_rows])
            for place, token in zip(open_rows, chosen, strict=True):
                targets[place].append(token)
            found = log_probs(logits, [token for run in targets for token in run])
        for place, (row, run, start) in enumerate(zip(self.rows, tokens, runs.starts, strict=True)):
            own = found[start : start + len(run)]
            row.cached += len(run)
            if row.finished:
                row.learn(row.cached - len(run) + 1, own)
            else:
                row.learn(row.cached - len(run) + 1, own[:-1])
                row.write(targets[place][-1], own[-1], self.options, self.context)

    def peek(self, rows: Sequence[_Row]) -> Tensor:
        """Logits (N, V) behind the last token of each of some rows, which are not kept; N at most a batch."""
        for number, row in enumerate(rows):
            self.put(number, row, self.begin(row, rows[number + 1 :]))
        with torch.inference_mode():
            runs = ragged.runs_of([row.unread for row in rows], self.cache)
            logits = self._reader.logits(self._reader.features(runs, self.cache))
        self.drop(range(len(rows)))
        return logits

    @staticmethod
    def _known(row: _Row, run: Sequence[int]) -> list[int]:
        """The tokens that come behind each of a run, as far as they are written."""
        return row.ids[row.cached + 1 : row.cached + 1 + len(run)]

    def slide(self, row: _Row) -> None:
        """Finish a text that has outgrown the context, with the last of its tokens as input at each step.

        Positions shift by one a step, so nothing cached stays right, and every step reads the whole window.
        """
        while not row.finished:
            window = torch.tensor([row.ids[-self.context :]], device=self.device)  # (1, context)
            with torch.inference_mode():
                logits = self.network.lm_head(self.network.features(window)[:, -1]).float()  # (1, V)
                (token,) = self._choose(logits, [row])
                (log_prob,) = log_probs(logits, [token])
            row.write(token, log_prob, self.options, self.context)

    def _choose(self, logits: Tensor, rows: Sequence[_Row]) -> list[int]:
        """A token for each row, from the logits (N, V) behind its last one."""
        if not rows:
            return []
        return self._chooser.choose(
            logits, [row.allowed for row in rows], [next(row.uniforms) for row in rows]
        )

    def _make_room(self, n_tokens: int) -> None:
        if n_tokens > self.cache.capacity:
            self.cache.grow(min(max(2 * self.cache.capacity, n_tokens), self.context))

    def _prefill(self, group: Mapping[tuple[int, ...], _Row]) -> None:
        rows = list(group.values())
        lengths = [len(row.ids) - 1 for row in rows]
        longest = max(lengths)
        cache = self.network.new_cache(len(rows), longest)
        found: list[list[float]] = [[] for _ in rows]
        if longest:
            # Padding stands behind the tokens, where causal attention does not look, and is forgotten.
            padded = torch.tensor(
                [row.ids[:-1] + [0] * (longest - n) for row, n in zip(rows, lengths, strict=True)]
            )
            with torch.inference_mode():
                features = self.network.features(padded.to(self.device), cache=cache)  # (B, T, C)
                cache.set_lengths(lengths)
                places = [(i, at) for i, row in enumerate(rows) for at in range(row.n_prompt - 1, lengths[i])]
                if places:
                    which = torch.tensor(places, device=self.device)
                    logits = self.network.lm_head(features[which[:, 0], which[:, 1]]).float()
                    known = log_probs(logits, [rows[i].ids[at + 1] for i, at in places])
                    for (i, _), log_prob in zip(places, known, strict=True):
                        found[i].append(log_prob)
        for i, key in enumerate(group):
            self._read[key] = _Read(cache, i, found[i])
        while len(self._read) > max(_KEPT_PREFILLS, len(group)):
            self._read.popitem(last=False)


def _generate(decoder: _Decoder, rows: Iterator[_Row], progress: Progress | None) -> Iterator[Sample]:
    finished: dict[int, Sample] = {}
    n_finished = n_tokens = n_given = 0
    waiting: deque[_Row] = deque()
    options, context = decoder.options, decoder.context

    def next_row() -> _Row | None:
        """The next row, the ones that will soon have a place being known."""
        while len(waiting) < _PREFILL_ROWS and (row := next(rows, None)) is not None:
            row.begin(options, context)
            waiting.append(row)
        return waiting.popleft() if waiting else None

    more = True
    while more or decoder.rows:
        done: list[_Row] = []
        open_places = deque(place for place, row in enumerate(decoder.rows) if row.done)
        done.extend(decoder.rows[place] for place in open_places)
        while more and (open_places or len(decoder.rows) < decoder.batch_size):
            row = next_row()
            if row is None:
                more = False
                break
            begun = decoder.begin(row, waiting)
            if row.done:
                done.append(row)
                continue
            decoder.put(open_places.popleft() if open_places else len(decoder.rows), row, begun)
        if open_places:
            decoder.drop(open_places)
        if decoder.rows:
            decoder.step()
        outgrown = [row for row in decoder.rows if not row.finished and len(row.ids) > context]
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
