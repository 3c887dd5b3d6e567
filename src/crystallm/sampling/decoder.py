"""Batched decoding with prefill and key-value cache.

Letters of shapes: N new tokens or sequences, V vocabulary, B sequences of a prefill, T tokens, C width.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from crystallm.network.conditions import guide, value_tensor
from crystallm.network.ragged import RaggedNetwork
from crystallm.sampling.token_sampler import TokenSampler, token_log_probs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from crystallm.network.kv_cache import KVCache
    from crystallm.network.transformer import GPT
    from crystallm.sampling.sequence import (
        Conditions,
        DecodingOptions,
        Sample,
        SequenceRequest,
        TokenSequence,
    )

    Progress = Callable[[int, int], None]

PREFILL_ROWS = 32  # distinct prefixes that go through the network together
_PREFILL_TOKENS = 8192  # of these, padding included, at most
_MAX_PREFILLS = 64  # distinct prefixes whose keys and values are kept for later samples
_MAX_VECTORS = 4096  # condition vectors that are kept
_FIRST_CAPACITY = 128  # cached tokens per row; doubled when a row needs more


class RequestQueue(Protocol):
    """Source of requests while others are being sampled. Called by the sampling thread."""

    def next(self, *, wait: bool) -> SequenceRequest | None:
        """Return the next request.

        Args:
            wait: nothing is being sampled: wait for a request. None then means that the queue is closed.

        Returns:
            None if there is none now.
        """

    def is_active(self, request: SequenceRequest) -> bool:
        """Return whether a request that was taken is still to be sampled."""


@dataclass(frozen=True)
class _Prefill:
    """A prefix that the network has read: all its tokens but the last.

    Attributes:
        plain: cache without conditions, of a decoder with guidance.
    """

    cache: KVCache
    plain: KVCache | None
    row: int
    log_probs: list[float]


class Decoder:
    """A batch of sequences, their cache, and prefixes that have been read.

    Args:
        guided: whether sequences may have conditions and guidance. The network then reads each token twice,
            with the conditions and without, into a cache each.
    """

    def __init__(self, network: GPT, batch_size: int, *, compiled: bool = True, guided: bool = False) -> None:
        self.network = network
        self.batch_size = batch_size
        self.context = network.config.context
        self.device = network.transformer.wte.weight.device
        self.rows: list[TokenSequence] = []
        self._ragged = RaggedNetwork(network, compiled=compiled)
        self.cache = self._ragged.new_cache(batch_size, min(_FIRST_CAPACITY, self.context))
        self.cache.set_lengths([])
        self._plain = self._ragged.new_cache(batch_size, self.cache.capacity) if guided else None
        self._set_plain_lengths([])
        self._vectors: dict[Conditions, Tensor] = {}
        self._prefills: OrderedDict[tuple[object, ...], _Prefill] = OrderedDict()
        self._token_sampler = TokenSampler(network.config.vocab_size, compiled=self._ragged.compiled)

    def prefill(self, sequence: TokenSequence, upcoming: Iterable[TokenSequence]) -> _Prefill:
        """Read all tokens of a sequence but the last, together with upcoming sequences."""
        key = sequence.key
        if key not in self._prefills:
            group = {key: sequence}
            longest = len(sequence.ids)
            for later in upcoming:
                longest = max(longest, len(later.ids))
                if len(group) >= PREFILL_ROWS or longest * (len(group) + 1) > _PREFILL_TOKENS:
                    break
                if later.key not in self._prefills:
                    group.setdefault(later.key, later)
            self._read_prefixes(group)
        self._prefills.move_to_end(key)
        prefill = self._prefills[key]
        sequence.cached = len(sequence.ids) - 1
        sequence.record_log_probs(sequence.n_prompt, prefill.log_probs)
        return prefill

    def insert(self, row: int, sequence: TokenSequence, prefill: _Prefill) -> None:
        """Put a prefilled sequence into a row of the cache."""
        self._reserve(len(sequence.ids))
        self.cache.fill_row(row, prefill.cache, prefill.row)
        if self._plain is not None and prefill.plain is not None:
            self._plain.fill_row(row, prefill.plain, prefill.row)
        self.rows[row : row + 1] = [sequence]

    def remove(self, rows: Sequence[int]) -> None:
        """Remove finished sequences."""
        if self._plain is not None:
            self._plain.drop_rows(rows)
        self.rows = [self.rows[row] for row in self.cache.drop_rows(rows)]

    def step(self) -> None:
        """Read the unread tokens of each row; append a sampled token, and forced ones after it, where due."""
        tokens = [sequence.unread for sequence in self.rows]
        before = [sequence.cached for sequence in self.rows]
        self._reserve(max(cached + len(run) for cached, run in zip(before, tokens, strict=True)))
        with torch.inference_mode():
            self.cache.set_lengths(before)
            self._set_plain_lengths(before)
            runs = self._ragged.runs(tokens, self.cache)
            vectors = self._row_vectors(self.rows)
            logits = self._ragged.logits(self._ragged.features(runs, self.cache, vectors))  # (N, V)
            targets = [_next_tokens(row, run) for row, run in zip(self.rows, tokens, strict=True)]
            ends = [start + len(run) - 1 for start, run in zip(runs.starts, tokens, strict=True)]
            open_rows = [row for row, sequence in enumerate(self.rows) if not sequence.finished]
            last = torch.tensor([ends[row] for row in open_rows], device=self.device, dtype=torch.int64)
            due = [self.rows[row] for row in open_rows]
            guided = logits[last]
            if self._plain is not None:
                plain = self._ragged.features(runs, self._plain)  # (N, C)
                guided = self._guide(guided, self._ragged.logits(plain[last]), due)
            drawn = self._draw(guided, due)
            for row, token in zip(open_rows, drawn, strict=True):
                targets[row].append(token)
            log_probs = token_log_probs(logits, [token for run in targets for token in run])
        for row, (sequence, run, start) in enumerate(zip(self.rows, tokens, runs.starts, strict=True)):
            own = log_probs[start : start + len(run)]
            first = sequence.cached + 1
            sequence.cached += len(run)
            if sequence.finished:
                sequence.record_log_probs(first, own)
            else:
                if len(own) > 1:
                    sequence.record_log_probs(first, own[:-1])
                sequence.append_sampled(targets[row][-1], own[-1], self.context)

    def next_logits(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """Return logits (N, V) after the last token of at most `batch_size` sequences; keeps no rows."""
        for row, sequence in enumerate(sequences):
            self.insert(row, sequence, self.prefill(sequence, sequences[row + 1 :]))
        with torch.inference_mode():
            runs = self._ragged.runs([sequence.unread for sequence in sequences], self.cache)
            vectors = self._row_vectors(sequences)
            logits = self._ragged.logits(self._ragged.features(runs, self.cache, vectors))
        self.remove(range(len(sequences)))
        return logits

    def slide(self, sequence: TokenSequence) -> None:
        """Finish a sequence that has outgrown the context, reading its last tokens again at each step.

        Positions shift by one per step, so that cached keys and values cannot be used.
        """
        while not sequence.finished:
            window = torch.tensor([sequence.ids[-self.context :]], device=self.device)  # (1, context)
            with torch.inference_mode():
                conditions = self._conditions([sequence])
                features = self.network.features(window, conditions=conditions)
                logits = self.network.lm_head(features[:, -1]).float()  # (1, V)
                guided = logits
                if self._plain is not None:
                    plain = self.network.lm_head(self.network.features(window)[:, -1]).float()
                    guided = self._guide(logits, plain, [sequence])
                (token,) = self._draw(guided, [sequence])
                (log_prob,) = token_log_probs(logits, [token])
            sequence.append_sampled(token, log_prob, self.context)

    def _draw(self, logits: Tensor, sequences: Sequence[TokenSequence]) -> list[int]:
        """Draw a token for each sequence from the logits (N, V) after its last token."""
        by_options: dict[DecodingOptions, list[int]] = {}
        first = sequences[0].options if sequences else None
        if first is not None and all(sequence.options is first for sequence in sequences):
            by_options[first] = list(range(len(sequences)))
        else:
            for i, sequence in enumerate(sequences):
                by_options.setdefault(sequence.options, []).append(i)
        drawn = [0] * len(sequences)
        for options, indices in by_options.items():
            group = [sequences[i] for i in indices]
            new = self._token_sampler.draw(
                logits if len(by_options) == 1 else logits[torch.tensor(indices, device=self.device)],
                [sequence.allowed for sequence in group],
                [next(sequence.numbers) for sequence in group],
                temperature=options.temperature,
                top_k=options.top_k,
                top_p=options.top_p,
            )
            for i, token, interval in zip(indices, new.tokens, new.intervals, strict=True):
                drawn[i] = token
                sequences[i].numbers.drew(*interval)
        return drawn

    def _set_plain_lengths(self, lengths: Sequence[int]) -> None:
        if self._plain is not None:
            self._plain.set_lengths(lengths)

    def _conditions(self, sequences: Sequence[TokenSequence]) -> Tensor | None:
        """Return values (B, 1, P) of sequences; None where none has conditions."""
        given = [sequence.conditions for sequence in sequences]
        if not any(given):
            return None
        return value_tensor(given, len(self.network.config.condition_scales), self.device)

    def _row_vectors(self, sequences: Sequence[TokenSequence]) -> Tensor | None:
        """Return the condition vectors (B, 2 C) of sequences; None where none has conditions."""
        given = [sequence.conditions for sequence in sequences]
        if not any(given):
            return None
        if len(self._vectors) > _MAX_VECTORS:
            self._vectors.clear()
        if new := [values for values in dict.fromkeys(given) if values not in self._vectors]:
            n_properties = len(self.network.config.condition_scales)
            with torch.inference_mode():
                vectors = self.network.condition_vectors(value_tensor(new, n_properties, self.device)[:, 0])
            self._vectors.update(zip(new, vectors, strict=True))
        return torch.stack([self._vectors[values] for values in given])

    def _guide(self, logits: Tensor, plain: Tensor, sequences: Sequence[TokenSequence]) -> Tensor:
        """Return the logits (N, V) to draw from, given those with conditions and without."""
        strength = [row.options.guidance if row.conditions else 1.0 for row in sequences]
        tensor = torch.tensor(strength, device=self.device)[:, None]  # (N, 1)
        return torch.where(tensor == 1, logits, guide(logits, plain, tensor))

    def _reserve(self, n_tokens: int) -> None:
        if n_tokens > self.cache.capacity:
            capacity = min(max(2 * self.cache.capacity, n_tokens), self.context)
            self.cache.grow(capacity)
            if self._plain is not None:
                self._plain.grow(capacity)

    def _read_prefixes(self, group: Mapping[tuple[object, ...], TokenSequence]) -> None:
        """Prefill all sequences of a group in one pass."""
        sequences = sorted(group.values(), key=lambda sequence: -len(sequence.ids))
        lengths = [len(sequence.ids) - 1 for sequence in sequences]
        cache = self._ragged.new_cache(len(sequences), lengths[0])
        plain = None if self._plain is None else self._ragged.new_cache(len(sequences), lengths[0])
        log_probs: list[list[float]] = [[] for _ in sequences]
        read = [sequence for sequence in sequences if len(sequence.ids) > 1]  # the first ones
        if read:
            with torch.inference_mode():
                features, starts = self._read(read, cache, self._row_vectors(read))  # (N, C)
                if plain is not None:
                    self._read(read, plain, None)
                known = [
                    (i, k)
                    for i, sequence in enumerate(read)
                    for k in range(sequence.n_prompt - 1, lengths[i])
                ]
                if known:
                    index = torch.tensor([starts[i] + k for i, k in known], device=self.device)
                    logits = self._ragged.logits(features[index])  # (N, V)
                    values = token_log_probs(logits, [read[i].ids[k + 1] for i, k in known])
                    for (i, _), log_prob in zip(known, values, strict=True):
                        log_probs[i].append(log_prob)
        for each in (cache, plain):
            if each is not None:
                each.set_lengths(lengths)
        for i, sequence in enumerate(sequences):
            self._prefills[sequence.key] = _Prefill(cache, plain, i, log_probs[i])
        while len(self._prefills) > max(_MAX_PREFILLS, len(group)):
            self._prefills.popitem(last=False)

    def _read(
        self, sequences: Sequence[TokenSequence], cache: KVCache, vectors: Tensor | None
    ) -> tuple[Tensor, tuple[int, ...]]:
        """Read all tokens of sequences but the last of each into an empty cache.

        Returns:
            Features (N, C) of the tokens, and where those of each sequence start.
        """
        cache.set_lengths([0] * len(sequences))
        runs = self._ragged.runs([sequence.ids[:-1] for sequence in sequences], cache)
        return self._ragged.features(runs, cache, vectors), runs.starts


def _next_tokens(sequence: TokenSequence, run: Sequence[int]) -> list[int]:
    """Return the token after each of a run, as far as they are known."""
    return sequence.ids[sequence.cached + 1 : sequence.cached + 1 + len(run)]


class Batcher:
    """Keeps the rows of a decoder filled and yields sequences as they finish.

    Args:
        next_sequence: returns the next sequence, or None if there is none now. Called with True it may wait,
            and None is the end.
        is_active: whether a sequence is still to be sampled.
        prefetch: sequences to take before there is a free row, so that they are prefilled together.
    """

    def __init__(
        self,
        decoder: Decoder,
        next_sequence: Callable[[bool], TokenSequence | None],
        is_active: Callable[[TokenSequence], bool],
        prefetch: int,
    ) -> None:
        self._decoder = decoder
        self._next_sequence = next_sequence
        self._is_active = is_active
        self._prefetch = prefetch
        self._waiting: deque[TokenSequence] = deque()

    def __iter__(self) -> Iterator[TokenSequence]:
        """Decode until no sequence is left."""
        decoder = self._decoder
        while True:
            free = deque(
                row
                for row, sequence in enumerate(decoder.rows)
                if sequence.done or not self._is_active(sequence)
            )
            done = [decoder.rows[row] for row in free if decoder.rows[row].done]
            self._fill(free, done)
            if free:
                decoder.remove(free)
            if decoder.rows:
                decoder.step()
            elif not done:
                return
            for sequence in decoder.rows:
                if not sequence.finished and len(sequence.ids) > decoder.context:
                    decoder.slide(sequence)
            yield from done

    def _fill(self, free: deque[int], done: list[TokenSequence]) -> None:
        """Give free rows to new sequences; those that are done after their prefill are added to `done`."""
        decoder = self._decoder
        while free or len(decoder.rows) < decoder.batch_size:
            sequence = self._next(wait=not done and len(free) == len(decoder.rows))
            if sequence is None:
                return
            prefill = decoder.prefill(sequence, self._waiting)
            if sequence.done:
                done.append(sequence)
            else:
                decoder.insert(free.popleft() if free else len(decoder.rows), sequence, prefill)

    def _next(self, *, wait: bool) -> TokenSequence | None:
        """Return the next active sequence after taking those that will soon have a row."""
        while True:
            while len(self._waiting) < self._prefetch and self._take(wait=False):
                pass
            if not self._waiting and not (wait and self._take(wait=True)):
                return None
            if self._is_active(sequence := self._waiting.popleft()):
                return sequence

    def _take(self, *, wait: bool) -> bool:
        """Move one sequence into the waiting line; return False if there is none."""
        if (sequence := self._next_sequence(wait)) is None:
            return False
        sequence.start(self._decoder.context)
        self._waiting.append(sequence)
        return True


def in_order(sequences: Iterable[TokenSequence], progress: Progress | None) -> Iterator[Sample]:
    """Yield samples in the order of their prompts."""
    finished: dict[int, Sample] = {}
    n_tokens = n_yielded = 0
    for n_finished, sequence in enumerate(sequences, start=1):
        finished[sequence.number] = sequence.to_sample()
        n_tokens += len(sequence.log_probs)
        if progress is not None:
            progress(n_finished, n_tokens)
        while n_yielded in finished:
            yield finished.pop(n_yielded)
            n_yielded += 1
