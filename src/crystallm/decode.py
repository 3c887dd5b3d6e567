"""Sampling from a network: batched, with a key-value cache, one random stream a sample, and rules if given.

Where the rules leave one token only, it is written without asking the network, which reads such runs in one
pass together with the token before them; what rows have in front of the first choice is read once for all
samples of a prompt. A finished row makes place for the next.

Knows tokens, not crystals: which run of tokens ends a text is told by a `Stop`, which tokens may come next by
a `Rules` object. What a token means, how a prompt is made and what becomes of a sample is others' business.

What is written is a list of prompts with one set of options (`sample`), or what comes along a line that never
ends, each text with its own (`serve`).

A sample depends on (seed, index), on its prompt and on the options alone: in float32 it is the same whatever
else is in its batch, but for the rounding of matrix products (relative 1e-6), which may move a choice that
lies so close to the border between two tokens.

Letters of shapes: N rows being decoded, V vocabulary.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from crystallm import drawing
from crystallm.drafts import (
    BROKEN,
    Draft,
    Options,
    Row,
    RowState,
    Rules,
    Sample,
    Stop,
    check_options,
    check_text,
)  # fmt: skip
from crystallm.drawing import choose, log_probs, mask_logits
from crystallm.errors import CrystallmError, InputError
from crystallm.network import ragged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from crystallm.network.kv_cache import KVCache
    from crystallm.network.transformer import GPT

    Progress = Callable[[int, int], None]

__all__ = [
    "Draft",
    "Line",
    "Options",
    "RowState",
    "Rules",
    "Sample",
    "Stop",
    "Writer",
    "check",
    "choose",
    "mask_logits",
    "sample",
    "serve",
]

_FIRST_CAPACITY = 128  # cached tokens a row; doubles when a row needs more
_PREFILL_ROWS = 32  # distinct beginnings that go through the network together
_PREFILL_TOKENS = 8192  # of these, with padding, at most
_DRAWN_AHEAD = 8  # texts that are taken from a line before there is a place for them
_COMPILED_FOR = 8  # texts for which to load what is compiled (0.7 s) pays
_KEPT_PREFILLS = 64  # distinct beginnings whose keys and values are kept for samples to come


class Line(Protocol):
    """Where drafts come from while others are being written. Called by the thread that writes."""

    def take(self, *, wait: bool) -> Draft | None:
        """The next draft.

        Args:
            wait: nothing is being written: wait for one. None then means that the line is closed.

        Returns:
            None if there is none now.
        """

    def wanted(self, draft: Draft) -> bool:
        """Whether a draft that was taken is still to be written."""


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
    options = Options(stop, temperature, top_k, top_p, max_new_tokens)
    streams = range(len(prompts)) if indices is None else indices
    if len(streams) != len(prompts):
        raise InputError(f"{len(streams)} indices for {len(prompts)} prompts: give one for each")
    check_options(network, options, batch_size)
    for number, (prompt, index) in enumerate(zip(prompts, streams, strict=True)):
        check_text(network, number, Draft(prompt, options, seed, index))
    rows = (
        Row.of(number, Draft(prompt, options, seed, index, rules))
        for number, (prompt, index) in enumerate(zip(prompts, streams, strict=True))
    )
    decoder = _Decoder(network, min(batch_size, max(len(prompts), 1)), compiled=len(prompts) >= _COMPILED_FOR)
    found = _written(decoder, lambda _: next(rows, None), lambda _: True, _PREFILL_ROWS)
    return _in_order(found, progress)


def serve(network: GPT, line: Line, *, batch_size: int = 32) -> Iterator[tuple[Draft, Sample]]:
    """Write what comes along a line, until it is closed.

    A text begins as soon as there is a place for it beside those being written; each is what `sample` writes
    with its options, seed and index.

    Args:
        network: in evaluation mode.
        line: of drafts that `check` has found good.
        batch_size: texts written at a time.

    Returns:
        An iterator over drafts and what was written, as they finish; the work is done as it is drawn from.

    Raises:
        CrystallmError: while drawing, if the network's numbers are not finite.
    """
    drafts: dict[int, Draft] = {}
    numbers = itertools.count()

    def take(wait: bool) -> Row | None:
        draft = line.take(wait=wait)
        if draft is None:
            return None
        row = Row.of(next(numbers), draft)
        drafts[row.number] = draft
        return row

    def wanted(row: Row) -> bool:
        if line.wanted(drafts[row.number]):
            return True
        del drafts[row.number]
        return False

    for row in _written(_Decoder(network, batch_size), take, wanted, _DRAWN_AHEAD):
        yield drafts.pop(row.number), row.to_sample()


def check(network: GPT, draft: Draft) -> None:
    """Refuse a draft that cannot be written.

    Raises:
        InputError: an option out of its range; a prompt that is empty, has foreign tokens, fills the context,
            or breaks the rules.
    """
    check_options(network, draft.options, 1)
    check_text(network, draft.index, draft)
    if draft.rules is not None:
        draft.rules.start(draft.prompt)


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
        self._options = Options(stop, temperature, top_k, top_p, max_new_tokens)
        check_options(network, self._options, batch_size)
        self._rules = rules
        self._decoder = _Decoder(network, batch_size)

    def sample(
        self, beginnings: Sequence[tuple[Sequence[int], int]], *, seed: int, indices: Sequence[int]
    ) -> Iterator[Sample]:
        """Write one text behind each beginning; one that is a whole text stays as it is.

        So does one that fills the context, if that does not slide.

        Args:
            beginnings: tokens, and how many of them are the prompt's: the log-probabilities of the others
                are those of the text.
            seed: as for `sample`.
            indices: one for each beginning.

        Returns:
            As for `sample`. It has to be drawn from to its end before the writer is asked again.

        Raises:
            InputError: a beginning that is empty, has foreign tokens, outgrows the context, breaks the rules.
        """
        stop, context = self._options.stop, self._network.config.context
        end = stop.end_ids
        rows = []
        for number, ((ids, n_prompt), index) in enumerate(zip(beginnings, indices, strict=True)):
            draft = Draft(ids, self._options, seed, index, self._rules)
            n_written = len(ids) - n_prompt
            ended = n_written >= len(end) and tuple(ids[-len(end) :]) == end
            finished = ended or (len(ids) >= context and not stop.slide)
            check_text(self._network, number, draft, finished=finished)
            row = Row.of(number, draft)
            row.n_prompt = n_prompt
            row.log_probs, row.forced = [math.nan] * n_written, [False] * n_written
            row.ended, row.finished = ended, finished
            rows.append(row)
        line = iter(rows)
        written = _written(self._decoder, lambda _: next(line, None), lambda _: True, _PREFILL_ROWS)
        return _in_order(written, None)

    def peek(self, beginnings: Sequence[tuple[Sequence[int], int]]) -> Tensor:
        """Log-probabilities (N, V) of what may come behind each beginning, without temperature or rules.

        Args:
            beginnings: as for `sample`, each shorter than the context.

        Raises:
            InputError: as for `sample`.
            CrystallmError: the network's numbers are not finite.
        """
        rows = []
        for number, (ids, n_prompt) in enumerate(beginnings):
            draft = Draft(ids, self._options)
            check_text(self._network, number, draft)
            rows.append(Row.of(number, draft))
            rows[-1].n_prompt = n_prompt
        size = self._decoder.batch_size
        found = [self._decoder.peek(rows[k : k + size]) for k in range(0, len(rows), size)]
        if not found:
            return torch.empty(0, self._network.config.vocab_size)
        logits = torch.cat(found).log_softmax(dim=-1)
        if bool(logits.isnan().any()):
            raise CrystallmError(BROKEN)
        return logits


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

    def __init__(self, network: GPT, batch_size: int, *, compiled: bool = True) -> None:
        self.network = network
        self.batch_size = batch_size
        self.context = network.config.context
        self.device = network.transformer.wte.weight.device
        self.rows: list[Row] = []
        self.cache = network.new_cache(batch_size, min(_FIRST_CAPACITY, self.context))
        self.cache.set_lengths([])
        self._read: OrderedDict[tuple[int, ...], _Read] = OrderedDict()
        self._reader = ragged.Reader(network, compiled=compiled)
        self._chooser = drawing.Chooser(network.config.vocab_size)

    def begin(self, row: Row, upcoming: Iterable[Row]) -> _Read:
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

    def put(self, place: int, row: Row, begun: _Read) -> None:
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
            runs = self._reader.runs(tokens, self.cache)
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
                row.write(targets[place][-1], own[-1], self.context)

    def peek(self, rows: Sequence[Row]) -> Tensor:
        """Logits (N, V) behind the last token of each of some rows, which are not kept; N at most a batch."""
        for number, row in enumerate(rows):
            self.put(number, row, self.begin(row, rows[number + 1 :]))
        with torch.inference_mode():
            runs = self._reader.runs([row.unread for row in rows], self.cache)
            logits = self._reader.logits(self._reader.features(runs, self.cache))
        self.drop(range(len(rows)))
        return logits

    @staticmethod
    def _known(row: Row, run: Sequence[int]) -> list[int]:
        """The tokens that come behind each of a run, as far as they are written."""
        return row.ids[row.cached + 1 : row.cached + 1 + len(run)]

    def slide(self, row: Row) -> None:
        """Finish a text that has outgrown the context, with the last of its tokens as input at each step.

        Positions shift by one a step, so nothing cached stays right, and every step reads the whole window.
        """
        while not row.finished:
            window = torch.tensor([row.ids[-self.context :]], device=self.device)  # (1, context)
            with torch.inference_mode():
                logits = self.network.lm_head(self.network.features(window)[:, -1]).float()  # (1, V)
                (token,) = self._choose(logits, [row])
                (log_prob,) = log_probs(logits, [token])
            row.write(token, log_prob, self.context)

    def _choose(self, logits: Tensor, rows: Sequence[Row]) -> list[int]:
        """A token for each row, from the logits (N, V) behind its last one."""
        alike: dict[Options, list[int]] = {}
        for place, row in enumerate(rows):
            alike.setdefault(row.options, []).append(place)
        chosen = [0] * len(rows)
        for options, places in alike.items():
            together = [rows[place] for place in places]
            tokens = self._chooser.choose(
                logits if len(alike) == 1 else logits[torch.tensor(places, device=self.device)],
                [row.allowed for row in together],
                [next(row.uniforms) for row in together],
                temperature=options.temperature,
                top_k=options.top_k,
                top_p=options.top_p,
            )
            for place, token in zip(places, tokens, strict=True):
                chosen[place] = token
        return chosen

    def _make_room(self, n_tokens: int) -> None:
        if n_tokens > self.cache.capacity:
            self.cache.grow(min(max(2 * self.cache.capacity, n_tokens), self.context))

    def _prefill(self, group: Mapping[tuple[int, ...], Row]) -> None:
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


def _written(
    decoder: _Decoder,
    take: Callable[[bool], Row | None],
    wanted: Callable[[Row], bool],
    ahead: int,
) -> Iterator[Row]:
    """Rows as they are finished.

    Args:
        decoder: with no rows yet.
        take: gives the next row; None if there is none now. With True it may wait, and None is the end.
        wanted: whether a row is still to be written.
        ahead: rows that are taken before there is a place for them.
    """
    waiting: deque[Row] = deque()

    def drawn(*, wait: bool) -> bool:
        if (row := take(wait)) is None:
            return False
        row.begin(decoder.context)
        waiting.append(row)
        return True

    def next_row(wait: bool) -> Row | None:
        """The next row, the ones that will soon have a place being known."""
        while True:
            while len(waiting) < ahead and drawn(wait=False):
                pass
            if not waiting and not (wait and drawn(wait=True)):
                return None
            if wanted(row := waiting.popleft()):
                return row

    while True:
        left = deque(place for place, row in enumerate(decoder.rows) if row.done or not wanted(row))
        done = [decoder.rows[place] for place in left if decoder.rows[place].done]
        while left or len(decoder.rows) < decoder.batch_size:
            row = next_row(not done and len(left) == len(decoder.rows))
            if row is None:
                break
            begun = decoder.begin(row, waiting)
            if row.done:
                done.append(row)
                continue
            decoder.put(left.popleft() if left else len(decoder.rows), row, begun)
        if left:
            decoder.drop(left)
        if decoder.rows:
            decoder.step()
        elif not done:
            return
        outgrown = [row for row in decoder.rows if not row.finished and len(row.ids) > decoder.context]
        for row in outgrown:
            decoder.slide(row)
        yield from done


def _in_order(found: Iterable[Row], progress: Progress | None) -> Iterator[Sample]:
    """Samples in the order of their prompts."""
    finished: dict[int, Sample] = {}
    n_tokens = n_given = 0
    for n_finished, row in enumerate(found, start=1):
        finished[row.number] = row.to_sample()
        n_tokens += len(row.log_probs)
        if progress is not None:
            progress(n_finished, n_tokens)
        while n_given in finished:
            yield finished.pop(n_given)
            n_given += 1
