"""Sample token sequences from a network; log-probabilities of given sequences.

Sampling is batched, with a key-value cache, a random stream per sample and an optional grammar. Tokens that
the grammar forces are appended without sampling; the network reads such runs in one pass together with the
token before them. A prefix is read once for all its samples. A finished row is given to the next sequence.

`sample` takes a list of prompts with one set of options, `serve` a queue of requests with options of their
own, `PrefixSampler` continues prefixes again and again.

A sample depends only on (seed, index), its prompt and the options. In float32 it does not depend on its
batch, up to the rounding of matrix products (relative 1e-6), which can change a token only if a random number
lies that close to the border between two tokens.

Does not depend on crystals or languages. Letters of shapes: B sequences, T tokens, V vocabulary, N prefixes.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import torch

from crystallm.errors import CrystallmError, InputError
from crystallm.sampling.decoder import PREFILL_ROWS, Batcher, Decoder, in_order
from crystallm.sampling.sequence import (
    NOT_FINITE,
    Conditions,
    DecodingOptions,
    Grammar,
    Sample,
    SequenceRequest,
    Stop,
    TokenSequence,
    check_options,
    check_prompt,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import Tensor

    from crystallm.network.transformer import GPT
    from crystallm.sampling.decoder import RequestQueue

    Progress = Callable[[int, int], None]

_PREFETCH = 8  # requests taken from a queue or stream before there is a free row
_MIN_COMPILED = 8  # sequences from which loading the compiled kernels (0.7 s) pays off
_BATCH = 64  # given sequences that go through the network together


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
    grammar: Grammar | None = None,
    conditions: Sequence[Conditions] | None = None,
    guidance: float = 1.0,
    progress: Progress | None = None,
) -> Iterator[Sample]:
    """Sample one sequence per prompt.

    Args:
        prompts: tokens. Repeat a prompt, side by side, for several samples; it is read once.
        temperature: divides the logits; 0 takes the most likely token.
        top_k: sample from the k most likely of the allowed tokens; None for all.
        top_p: sample from the smallest set of most likely tokens that holds this probability; None for all.
        seed: with a sample's index, selects its random numbers.
        indices: one per prompt; 0, 1, ... if None.
        max_new_tokens: a sequence with this many generated tokens and no end stays unfinished.
        grammar: constrains the next token; None for no constraint.
        conditions: values of the network's properties for each prompt; None: all are unknown.
        guidance: strength of the conditions, see `network.conditions.guide`.
        progress: called after each finished sequence with the sequences and generated tokens so far.

    Returns:
        A lazy iterator over the samples in the order of the prompts.

    Raises:
        InputError: an option is out of range; a prompt is empty, has unknown tokens or fills the context.
        CrystallmError: during iteration, if the network's logits are not finite.
    """
    options = DecodingOptions(stop, temperature, top_k, top_p, max_new_tokens, guidance)
    given: Sequence[Conditions] = [()] * len(prompts) if conditions is None else conditions
    streams = range(len(prompts)) if indices is None else indices
    if len(streams) != len(prompts):
        raise InputError(f"{len(streams)} indices for {len(prompts)} prompts: give one for each")
    check_options(network, options, batch_size)
    requests = [
        SequenceRequest(prompt, options, seed, index, grammar, values)
        for prompt, index, values in zip(prompts, streams, given, strict=True)
    ]
    for number, request in enumerate(requests):
        check_prompt(network, number, request)
    rows = (TokenSequence.from_request(number, request) for number, request in enumerate(requests))
    guided = guidance != 1 and any(given)
    decoder = _decoder(network, len(prompts), batch_size, guided=guided)
    batcher = Batcher(decoder, lambda _: next(rows, None), lambda _: True, PREFILL_ROWS)
    return in_order(batcher, progress)


def sample_stream(
    network: GPT,
    requests: Iterable[SequenceRequest],
    *,
    n: int,
    batch_size: int = 32,
    guided: bool = False,
    n_urgent: int = 0,
    progress: Progress | None = None,
) -> Iterator[Sample]:
    """Sample one sequence per request, and draw requests only as rows for them get free.

    Args:
        requests: n of them, with valid options; making one may take long.
        guided: whether some have conditions and guidance.
        n_urgent: number of sequences that come first. Until they are ready, each ready one lets one other
            start; batches may not be full.
        progress: as for `sample`.

    Returns:
        A lazy iterator over the samples in the order of the requests.

    Raises:
        InputError: during iteration; a prompt is empty, has unknown tokens or fills the context.
        CrystallmError: as for `sample`.
    """

    def rows() -> Iterator[TokenSequence]:
        for number, request in enumerate(requests):
            check_prompt(network, number, request)
            yield TokenSequence.from_request(number, request)

    sequences = rows()
    n_started = n_ready = 0

    def next_sequence(wait: bool) -> TokenSequence | None:
        nonlocal n_started
        if not wait and n_ready < n_urgent and n_started >= n_urgent + n_ready:
            return None
        n_started += 1
        return next(sequences, None)

    decoder = _decoder(network, n, batch_size, guided=guided)
    batcher = Batcher(decoder, next_sequence, lambda _: True, _PREFETCH)

    def samples() -> Iterator[Sample]:
        nonlocal n_ready
        for found in in_order(batcher, progress):
            n_ready += 1
            yield found

    return samples()


def _decoder(network: GPT, n: int, batch_size: int, *, guided: bool) -> Decoder:
    """Return a decoder for n sequences."""
    return Decoder(network, min(batch_size, max(n, 1)), compiled=n >= _MIN_COMPILED, guided=guided)


def serve(
    network: GPT, requests: RequestQueue, *, batch_size: int = 32
) -> Iterator[tuple[SequenceRequest, Sample]]:
    """Sample the requests of a queue until it is closed.

    A request starts as soon as there is a free row; its result is what `sample` returns for its options, seed
    and index.

    Returns:
        A lazy iterator over requests and samples, as they finish.

    Raises:
        CrystallmError: during iteration, if the network's logits are not finite.
    """
    by_number: dict[int, SequenceRequest] = {}
    numbers = itertools.count()

    def next_sequence(wait: bool) -> TokenSequence | None:
        request = requests.next(wait=wait)
        if request is None:
            return None
        sequence = TokenSequence.from_request(next(numbers), request)
        by_number[sequence.number] = request
        return sequence

    def is_active(sequence: TokenSequence) -> bool:
        if requests.is_active(by_number[sequence.number]):
            return True
        del by_number[sequence.number]
        return False

    decoder = Decoder(network, batch_size, guided=bool(network.config.condition_scales))
    for sequence in Batcher(decoder, next_sequence, is_active, _PREFETCH):
        yield by_number.pop(sequence.number), sequence.to_sample()


def check_request(network: GPT, request: SequenceRequest) -> None:
    """Raise if a request cannot be sampled.

    Raises:
        InputError: an option is out of range; the prompt is empty, has unknown tokens, fills the context or
            violates the grammar.
    """
    check_options(network, request.options, 1)
    check_prompt(network, request.index, request)
    if request.grammar is not None:
        request.grammar.start(request.prompt)


class PrefixSampler:
    """Samples from prefixes again and again; keeps the cache of prefixes that were read."""

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
        grammar: Grammar | None = None,
    ) -> None:
        self._network = network
        self._options = DecodingOptions(stop, temperature, top_k, top_p, max_new_tokens)
        check_options(network, self._options, batch_size)
        self._grammar = grammar
        self._decoder = Decoder(network, batch_size)

    def sample(
        self, prefixes: Sequence[tuple[Sequence[int], int]], *, seed: int, indices: Sequence[int]
    ) -> Iterator[Sample]:
        """Sample one sequence per prefix.

        A prefix that has ended, or fills a context that does not slide, is returned as it is.

        Args:
            prefixes: tokens, and how many of them are the prompt's; the log-probabilities of the others are
                part of the sample.

        Returns:
            As for `sample`. Exhaust the iterator before the next call.

        Raises:
            InputError: a prefix is empty, has unknown tokens, outgrows the context or violates the grammar.
        """
        stop, context = self._options.stop, self._network.config.context
        end = stop.end_ids
        sequences = []
        for number, ((ids, n_prompt), index) in enumerate(zip(prefixes, indices, strict=True)):
            request = SequenceRequest(ids, self._options, seed, index, self._grammar)
            n_generated = len(ids) - n_prompt
            ended = n_generated >= len(end) and tuple(ids[-len(end) :]) == end
            finished = ended or (len(ids) >= context and not stop.slide)
            check_prompt(self._network, number, request, finished=finished)
            sequence = TokenSequence.from_request(number, request)
            sequence.n_prompt = n_prompt
            sequence.log_probs, sequence.forced = [math.nan] * n_generated, [False] * n_generated
            sequence.ended, sequence.finished = ended, finished
            sequences.append(sequence)
        remaining = iter(sequences)
        batcher = Batcher(self._decoder, lambda _: next(remaining, None), lambda _: True, PREFILL_ROWS)
        return in_order(batcher, None)

    def next_log_probs(self, prefixes: Sequence[tuple[Sequence[int], int]]) -> Tensor:
        """Return log-probabilities (N, V) of the next token of each prefix, without temperature or grammar.

        Raises:
            CrystallmError: the network's logits are not finite.
        """
        sequences = []
        for number, (ids, n_prompt) in enumerate(prefixes):
            request = SequenceRequest(ids, self._options)
            check_prompt(self._network, number, request)
            sequences.append(TokenSequence.from_request(number, request))
            sequences[-1].n_prompt = n_prompt
        size = self._decoder.batch_size
        parts = [self._decoder.next_logits(sequences[k : k + size]) for k in range(0, len(sequences), size)]
        if not parts:
            return torch.empty(0, self._network.config.vocab_size)
        log_probs = torch.cat(parts).log_softmax(dim=-1)
        if bool(log_probs.isnan().any()):
            raise CrystallmError(NOT_FINITE)
        return log_probs


def log_probs(network: GPT, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
    """Return the log-probability of every token but the first of each sequence, in one pass."""
    if not sequences:
        return []
    logits = _padded_logits(network, [ids[:-1] for ids in sequences])  # (B, T - 1, V)
    n = logits.shape[1]
    targets = torch.tensor([[*ids[1:], *[0] * (n - len(ids) + 1)] for ids in sequences], device=logits.device)
    values = logits.gather(2, targets[..., None])[..., 0] - logits.logsumexp(dim=2)  # (B, T - 1)
    return [row[: len(ids) - 1].tolist() for row, ids in zip(values.cpu(), sequences, strict=True)]


def next_token_log_probs(network: GPT, sequences: Sequence[Sequence[int]]) -> Iterator[Tensor]:
    """Yield for each sequence the log-probabilities of the token after each of its tokens, (T, V)."""
    for start in range(0, len(sequences), _BATCH):
        group = sequences[start : start + _BATCH]
        values = torch.log_softmax(_padded_logits(network, group), dim=-1).cpu()  # (B, T, V)
        for ids, rows in zip(group, values, strict=True):
            yield rows[: len(ids)]


@torch.inference_mode()
def _padded_logits(network: GPT, sequences: Sequence[Sequence[int]]) -> Tensor:
    """Return logits (B, T, V), float32. Causal attention does not see the padding after the tokens."""
    longest = max(map(len, sequences))
    device = network.transformer.wte.weight.device
    ids = torch.tensor([[*each, *[0] * (longest - len(each))] for each in sequences], device=device)  # (B, T)
    logits: Tensor = network(ids).float()
    return logits
