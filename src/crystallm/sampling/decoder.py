"""Batched decoding with prefill and key-value cache."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from crystallm.network import ragged
from crystallm.sampling import token_sampler
from crystallm.sampling.token_sampler import log_probs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from crystallm.network.kv_cache import KVCache
    from crystallm.network.transformer import GPT
    from crystallm.sampling.sequence import Options, Sample, SequenceRequest, TokenSequence

    Progress = Callable[[int, int], None]


_FIRST_CAPACITY = 128  # cached tokens a row; doubles when a row needs more

PREFILL_ROWS = 32  # distinct beginnings that go through the network together

_PREFILL_TOKENS = 8192  # of these, with padding, at most

_KEPT_PREFILLS = 64  # distinct beginnings whose keys and values are kept for samples to come


class RequestQueue(Protocol):
    """Where drafts come from while others are being written. Called by the thread that writes."""

    def take(self, *, wait: bool) -> SequenceRequest | None:
        """The next draft.

        Args:
            wait: nothing is being written: wait for one. None then means that the line is closed.

        Returns:
            None if there is none now.
        """

    def wanted(self, draft: SequenceRequest) -> bool:
        """Whether a draft that was taken is still to be written."""


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


class Decoder:
    """Rows being written together, their cache, and the beginnings that have been read."""

    def __init__(self, network: GPT, batch_size: int, *, compiled: bool = True) -> None:
        self.network = network
        self.batch_size = batch_size
        self.context = network.config.context
        self.device = network.transformer.wte.weight.device
        self.rows: list[TokenSequence] = []
        self.cache = network.new_cache(batch_size, min(_FIRST_CAPACITY, self.context))
        self.cache.set_lengths([])
        self._read: OrderedDict[tuple[int, ...], _Read] = OrderedDict()
        self._reader = ragged.Reader(network, compiled=compiled)
        self._chooser = token_sampler.Chooser(network.config.vocab_size)

    def begin(self, row: TokenSequence, upcoming: Iterable[TokenSequence]) -> _Read:
        """Have the network read all that a row has but its last token, and that of others to come."""
        key = (row.n_prompt, *row.ids)
        if key not in self._read:
            group = {key: row}
            longest = len(row.ids)
            for other in upcoming:
                longest = max(longest, len(other.ids))
                if len(group) >= PREFILL_ROWS or longest * (len(group) + 1) > _PREFILL_TOKENS:
                    break
                if (other.n_prompt, *other.ids) not in self._read:
                    group.setdefault((other.n_prompt, *other.ids), other)
            self._prefill(group)
        self._read.move_to_end(key)
        found = self._read[key]
        row.cached = len(row.ids) - 1
        row.learn(row.n_prompt, found.log_probs)
        return found

    def put(self, place: int, row: TokenSequence, begun: _Read) -> None:
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

    def peek(self, rows: Sequence[TokenSequence]) -> Tensor:
        """Logits (N, V) behind the last token of each of some rows, which are not kept; N at most a batch."""
        for number, row in enumerate(rows):
            self.put(number, row, self.begin(row, rows[number + 1 :]))
        with torch.inference_mode():
            runs = self._reader.runs([row.unread for row in rows], self.cache)
            logits = self._reader.logits(self._reader.features(runs, self.cache))
        self.drop(range(len(rows)))
        return logits

    @staticmethod
    def _known(row: TokenSequence, run: Sequence[int]) -> list[int]:
        """The tokens that come behind each of a run, as far as they are written."""
        return row.ids[row.cached + 1 : row.cached + 1 + len(run)]

    def slide(self, row: TokenSequence) -> None:
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

    def _choose(self, logits: Tensor, rows: Sequence[TokenSequence]) -> list[int]:
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

    def _prefill(self, group: Mapping[tuple[int, ...], TokenSequence]) -> None:
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


def decoded(
    decoder: Decoder,
    take: Callable[[bool], TokenSequence | None],
    wanted: Callable[[TokenSequence], bool],
    ahead: int,
) -> Iterator[TokenSequence]:
    """Rows as they are finished.

    Args:
        decoder: with no rows yet.
        take: gives the next row; None if there is none now. With True it may wait, and None is the end.
        wanted: whether a row is still to be written.
        ahead: rows that are taken before there is a place for them.
    """
    waiting: deque[TokenSequence] = deque()

    def drawn(*, wait: bool) -> bool:
        if (row := take(wait)) is None:
            return False
        row.begin(decoder.context)
        waiting.append(row)
        return True

    def next_row(wait: bool) -> TokenSequence | None:
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


def in_order(found: Iterable[TokenSequence], progress: Progress | None) -> Iterator[Sample]:
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
