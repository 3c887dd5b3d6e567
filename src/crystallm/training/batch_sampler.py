"""What each epoch of a training run holds: which crystals, how often, in which windows, in which order.

Decided by the recipe, its seed and the number of the epoch alone, so that a run may go on from any place and
with any number of processes. Reads tokens, and asks the language for the space group of a crystal where rare
groups are to be drawn more often; knows no networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from crystallm.datasets import packing
from crystallm.datasets.shards import ConcatenatedSplit, Ids, TokenSplit
from crystallm.errors import InputError, TextError
from crystallm.language import get_language

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from crystallm.datasets.packing import PlannedBatch
    from crystallm.training.recipe import Recipe


_OPENING = 1000  # tokens of a crystal that are read for its space group


@dataclass(frozen=True)
class UpdateBatches:
    """What an update learns from.

    Attributes:
        batches: this process's micro-batches, each with the seed of its dropout.
        epoch, batch: place in the data behind the update.
        n_tokens, n_taught: of the micro-batches of all processes.
        attended: sum over these tokens of the length of their window.
    """

    batches: list[tuple[int, packing.Batch]]
    epoch: int
    batch: int
    n_tokens: int
    n_taught: int
    attended: int


@dataclass(frozen=True)
class BatchSampler:
    """The epochs of a run.

    Attributes:
        recipe: whose windows, seed and weights of rare groups count.
        split: the crystals to learn.
        mix: older ones of which some are drawn too, if any.
        others: equivalent descriptions of those of `split`, as many of each in turn, if any.
    """

    recipe: Recipe
    split: TokenSplit
    mix: TokenSplit | None = None
    others: TokenSplit | None = None

    @cached_property
    def source(self) -> TokenSplit | ConcatenatedSplit:
        """All crystals; those of `mix`, or `others`, stand behind the others."""
        behind = self.mix if self.others is None else self.others
        return self.split if behind is None else ConcatenatedSplit(self.split, behind)

    def _fitting(self, split: TokenSplit) -> Ids:
        """Numbers of the crystals that can be learned from."""
        return np.flatnonzero((split.lengths > 0) & (split.lengths <= self._longest))

    @property
    def _longest(self) -> int:
        """Tokens of the longest crystal that can be learned from."""
        return self.recipe.context if self.recipe.windows == "packed" else np.iinfo(np.int64).max

    @cached_property
    def weights(self) -> npt.NDArray[np.float64]:
        """[n] how often each fitting crystal of `split` is drawn in an epoch, on average; their mean is 1."""
        fitting = self._fitting(self.split)
        groups = space_groups(self.split, fitting)
        counts = np.bincount(groups, minlength=231)
        found = (len(groups) / counts[groups]) ** self.recipe.rare
        return np.asarray(found / found.mean())

    def crystals(self, epoch: int) -> Ids | None:
        """Numbers of the crystals of an epoch, as often as they are drawn; None: each that fits once."""
        recipe = self.recipe
        told = self.others if self._told_otherwise(epoch) else None
        if not recipe.rare and self.mix is None and told is None:
            return None if self.others is None else self._fitting(self.split)
        rng = np.random.default_rng([recipe.seed, epoch, 1])
        chosen = self._fitting(self.split)
        if recipe.rare:
            chosen = drawn(chosen, self.weights, rng)
        if self.mix is not None:
            others = self._fitting(self.mix) + len(self.split)
            chosen = np.concatenate([chosen, _some(others, self._mixed(len(chosen)), rng)])
        if told is not None:
            n = len(told) // len(self.split)
            way = rng.integers(n + 1, size=len(chosen))  # 0 is the canonical one
            chosen = np.where(way == 0, chosen, len(self.split) + chosen * n + way - 1)
            chosen = chosen[self.source.lengths[chosen] <= self._longest]
        return chosen

    def _told_otherwise(self, epoch: int) -> bool:
        """Whether crystals are told in any equivalent way when this epoch begins."""
        fitting = self._fitting(self.split)
        before = epoch * int(self.split.lengths[fitting].sum())
        return before < self.recipe.equivalents * (self.recipe.tokens or 0)

    def _mixed(self, n: int) -> int:
        """How many of `mix` stand beside n others."""
        return round(n * self.recipe.mix_share / (1 - self.recipe.mix_share))

    def plan(self, epoch: int) -> list[PlannedBatch]:
        """The micro-batches of an epoch in their order."""
        recipe, context = self.recipe, self.recipe.context
        rng = np.random.default_rng([recipe.seed, epoch])
        if recipe.windows == "random":
            offsets = rng.integers(len(self.split.stream), size=max(1, len(self.split.stream) // context))
            if self.mix is not None:
                others = rng.integers(len(self.mix.stream), size=self._mixed(len(offsets)))
                offsets = rng.permutation(np.concatenate([offsets, others + len(self.split.stream)]))
            return packing.cut(offsets, batch_tokens=recipe.batch_tokens, window=context)
        chosen = self.crystals(epoch)
        if recipe.windows == "packed":
            lengths = self.source.lengths
            return packing.plan(
                lengths, batch_tokens=recipe.batch_tokens, context=context, rng=rng, chosen=chosen
            )
        chosen = self._fitting(self.split) if chosen is None else chosen
        n_windows = max(1, int(self.source.lengths[chosen].sum()) // context)
        offsets = self.source.starts[_some(chosen, n_windows, rng)]
        return packing.cut(offsets, batch_tokens=recipe.batch_tokens, window=context)

    def steps(self, epoch: int, batch: int, *, size: int, rank: int, n_ranks: int) -> Iterator[UpdateBatches]:
        """Updates without end from a place in the data on, as one of several processes sees them.

        Args:
            epoch: of the place.
            batch: micro-batch in it to begin with.
            size: micro-batches of an update; the next epoch fills up what one leaves.
            rank: number of the process; micro-batch k of an update is for process k modulo `n_ranks`.
            n_ranks: number of processes.
        """
        gathered: list[tuple[int, int, PlannedBatch]] = []
        while True:
            for number, planned in enumerate(self.plan(epoch)):
                if number < batch:
                    continue
                gathered.append((epoch, number, planned))
                if len(gathered) == size:
                    yield self._step(gathered, rank, n_ranks)
                    gathered = []
            epoch, batch = epoch + 1, 0

    def _step(self, gathered: list[tuple[int, int, PlannedBatch]], rank: int, n_ranks: int) -> UpdateBatches:
        plans = [planned for _, _, planned in gathered]
        return UpdateBatches(
            [
                (_seed(self.recipe.seed, epoch, number), planned.fill(self.source))
                for epoch, number, planned in gathered[rank::n_ranks]
            ],
            gathered[-1][0],
            gathered[-1][1] + 1,
            sum(planned.n_tokens for planned in plans),
            sum(planned.n_taught for planned in plans),
            sum(planned.n_tokens * planned.window for planned in plans),
        )


def _seed(*numbers: int) -> int:
    """Of the dropout of a micro-batch: its own, so that a resumed run needs no state of generators."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _some(numbers: Ids, n: int, rng: np.random.Generator) -> Ids:
    """So many of these numbers by chance, each as often as any other, give or take one."""
    rounds = [rng.permutation(numbers) for _ in range(-(-n // max(1, len(numbers))))]
    return np.concatenate([*rounds, numbers[:0]])[:n]


def drawn(numbers: Ids, weights: npt.NDArray[np.float64], rng: np.random.Generator) -> Ids:
    """As many of these numbers as there are, each `weights` times on average, or that rounded up or down.

    Args:
        numbers: [n] to draw from.
        weights: [n] of mean 1.
        rng: of what is rounded up, by systematic sampling (Madow, Ann. Math. Stat. 20, 333, 1949).
    """
    order = rng.permutation(len(numbers))
    edges = np.floor(np.cumsum(weights[order]) + rng.random())
    edges[-1:] = len(numbers)  # whatever was lost in rounding
    counts = np.diff(edges, prepend=0.0).astype(np.int64)
    return np.repeat(numbers[order], counts)


def space_groups(split: TokenSplit, crystals: Ids) -> Ids:
    """[n] number of the space group of each of these crystals.

    Raises:
        InputError: a crystal that is none in the split's language.
    """
    language = get_language(split.language)
    found = np.zeros(len(crystals), dtype=np.int64)
    for place, crystal in enumerate(crystals.tolist()):
        try:
            found[place] = language.read_prompt(split.crystal(crystal)[:_OPENING].tolist())[1]
        except (TextError, InputError, IndexError, KeyError) as error:
            raise InputError(
                f"crystal {crystal} of the data set has no space group ({error}): prepare the data again, or "
                "train with rare = 0"
            ) from error
    return found
