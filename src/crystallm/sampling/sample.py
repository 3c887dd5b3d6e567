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
from typing import TYPE_CHECKING

import torch

from crystallm.errors import CrystallmError, InputError
from crystallm.sampling.decoder import PREFILL_ROWS, Decoder, decoded, in_order
from crystallm.sampling.sequence import (
    BROKEN,
    Grammar,
    Options,
    Sample,
    SequenceRequest,
    Stop,
    TokenSequence,
    check_options,
    check_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from crystallm.network.transformer import GPT
    from crystallm.sampling.decoder import RequestQueue

    Progress = Callable[[int, int], None]


_DRAWN_AHEAD = 8  # texts that are taken from a line before there is a place for them

_COMPILED_FOR = 8  # texts for which to load what is compiled (0.7 s) pays


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
    rules: Grammar | None = None,
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
        check_text(network, number, SequenceRequest(prompt, options, seed, index))
    rows = (
        TokenSequence.of(number, SequenceRequest(prompt, options, seed, index, rules))
        for number, (prompt, index) in enumerate(zip(prompts, streams, strict=True))
    )
    decoder = Decoder(network, min(batch_size, max(len(prompts), 1)), compiled=len(prompts) >= _COMPILED_FOR)
    found = decoded(decoder, lambda _: next(rows, None), lambda _: True, PREFILL_ROWS)
    return in_order(found, progress)


def serve(
    network: GPT, line: RequestQueue, *, batch_size: int = 32
) -> Iterator[tuple[SequenceRequest, Sample]]:
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
    drafts: dict[int, SequenceRequest] = {}
    numbers = itertools.count()

    def take(wait: bool) -> TokenSequence | None:
        draft = line.take(wait=wait)
        if draft is None:
            return None
        row = TokenSequence.of(next(numbers), draft)
        drafts[row.number] = draft
        return row

    def wanted(row: TokenSequence) -> bool:
        if line.wanted(drafts[row.number]):
            return True
        del drafts[row.number]
        return False

    for row in decoded(Decoder(network, batch_size), take, wanted, _DRAWN_AHEAD):
        yield drafts.pop(row.number), row.to_sample()


def check(network: GPT, draft: SequenceRequest) -> None:
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
        rules: Grammar | None = None,
    ) -> None:
        self._network = network
        self._options = Options(stop, temperature, top_k, top_p, max_new_tokens)
        check_options(network, self._options, batch_size)
        self._rules = rules
        self._decoder = Decoder(network, batch_size)

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
            draft = SequenceRequest(ids, self._options, seed, index, self._rules)
            n_written = len(ids) - n_prompt
            ended = n_written >= len(end) and tuple(ids[-len(end) :]) == end
            finished = ended or (len(ids) >= context and not stop.slide)
            check_text(self._network, number, draft, finished=finished)
            row = TokenSequence.of(number, draft)
            row.n_prompt = n_prompt
            row.log_probs, row.forced = [math.nan] * n_written, [False] * n_written
            row.ended, row.finished = ended, finished
            rows.append(row)
        line = iter(rows)
        written = decoded(self._decoder, lambda _: next(line, None), lambda _: True, PREFILL_ROWS)
        return in_order(written, None)

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
            draft = SequenceRequest(ids, self._options)
            check_text(self._network, number, draft)
            rows.append(TokenSequence.of(number, draft))
            rows[-1].n_prompt = n_prompt
        size = self._decoder.batch_size
        found = [self._decoder.peek(rows[k : k + size]) for k in range(0, len(rows), size)]
        if not found:
            return torch.empty(0, self._network.config.vocab_size)
        logits = torch.cat(found).log_softmax(dim=-1)
        if bool(logits.isnan().any()):
            raise CrystallmError(BROKEN)
        return logits


def token_losses(network: GPT, texts: Sequence[Sequence[int]]) -> list[list[float]]:
    """-log p of every token but the first of each text, nats."""
    import torch

    longest = max(map(len, texts))
    device = network.transformer.wte.weight.device
    # Padding stands behind all that is looked at, and no token sees what comes after it.
    ids = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts], device=device)  # (B, T)
    with torch.no_grad():
        logits = network(ids[:, :-1]).float()  # (B, T - 1, V)
        told = logits.gather(2, ids[:, 1:, None])[..., 0] - logits.logsumexp(dim=2)  # (B, T - 1)
    return [(-row[: len(text) - 1]).tolist() for row, text in zip(told.cpu(), texts, strict=True)]


_BATCH = 64  # texts that go through the network together


def log_probs(network: GPT, texts: Sequence[Sequence[int]]) -> Iterator[Tensor]:
    """For each text, at each of its tokens, the log-probabilities of the next one, (T, V) float32."""
    import torch

    device = network.transformer.wte.weight.device
    for start in range(0, len(texts), _BATCH):
        group = texts[start : start + _BATCH]
        longest = max(map(len, group))
        # Padding stands behind the tokens, where causal attention does not look.
        padded = torch.tensor(
            [[*text, *[0] * (longest - len(text))] for text in group], device=device
        )  # (B, T)
        with torch.inference_mode():
            logits = network(padded).float()  # (B, T, V)
        for text, rows in zip(group, torch.log_softmax(logits, dim=-1).cpu(), strict=True):
            yield rows[: len(text)]
