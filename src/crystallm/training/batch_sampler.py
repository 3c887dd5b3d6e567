"""Batches of each epoch: which crystals, how often, in which windows and order.

Determined by recipe, seed and epoch only, so that a run can resume at any position with any number of
processes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from crystallm.datasets import packing
from crystallm.datasets.shards import ConcatenatedSplit, Ids, PrefixedSplit, Split, TokenSplit
from crystallm.errors import InputError, TextError
from crystallm.language import get_language

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from crystallm.datasets.packing import PlannedBatch
    from crystallm.training.recipe import Recipe

_PROMPT_TOKENS = 1000  # tokens of a crystal that are read for its space group


@dataclass(frozen=True)
class UpdateBatches:
    """Batches of one update.

    Attributes:
        batches: this process's micro-batches, each with its dropout seed.
        epoch: of the position in the data after the update.
        n_tokens: number of tokens in the micro-batches of all processes.
        n_taught: number of these with a target.
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
    """Samples the batches of a run.

    Attributes:
        split: crystals to learn.
        replay: crystals of an older data set, of which some are drawn too, if any.
        augmentations: equivalent descriptions of the crystals of `split`, n of each in a row, if any.
        values: [n, n_properties] of the crystals of `source`, NaN where unknown, if any.
        relatives: the crystals of `split` again, each behind its relatives, if any.
    """

    recipe: Recipe
    split: TokenSplit
    replay: TokenSplit | None = None
    augmentations: TokenSplit | None = None
    values: npt.NDArray[np.float64] | None = None
    relatives: PrefixedSplit | None = None

    @cached_property
    def source(self) -> Split:
        """All crystals: those of `split`, then those of `replay` or `augmentations`, or with `relatives`."""
        for more in (self.relatives, self.augmentations, self.replay):
            if more is not None:
                return ConcatenatedSplit(self.split, more)
        return self.split

    def _fitting(self, split: TokenSplit) -> Ids:
        """Return the indices of crystals that are neither empty nor too long."""
        return np.flatnonzero((split.lengths > 0) & (split.lengths <= self._max_length))

    @property
    def _max_length(self) -> int:
        return self.recipe.context if self.recipe.packing == "packed" else np.iinfo(np.int64).max

    @cached_property
    def weights(self) -> npt.NDArray[np.float64]:
        """[n] expected number of draws per epoch of each fitting crystal of `split`; the mean is 1.

        Raises:
            InputError: a crystal has no space group.
        """
        fitting = self._fitting(self.split)
        groups = space_groups(self.split, fitting)
        counts = np.bincount(groups, minlength=231)
        weights = (len(groups) / counts[groups]) ** self.recipe.rare_group_exponent
        return np.asarray(weights / weights.mean())

    def crystals(self, epoch: int) -> Ids | None:
        """Return the indices of the crystals of an epoch, repeated as drawn; None: each fitting one once."""
        recipe = self.recipe
        augmentations = self.augmentations if self._is_augmented(epoch) else None
        more = [one for one in (self.replay, augmentations, self.relatives) if one is not None]
        if not recipe.rare_group_exponent and not more:
            return None if self.augmentations is None else self._fitting(self.split)
        rng = np.random.default_rng([recipe.seed, epoch, 1])
        chosen = self._fitting(self.split)
        if recipe.rare_group_exponent:
            chosen = draw_by_weight(chosen, self.weights, rng)
        if self.replay is not None:
            replayed = self._fitting(self.replay) + len(self.split)
            chosen = np.concatenate([chosen, sample_evenly(replayed, self._n_replayed(len(chosen)), rng)])
        if augmentations is not None:
            n = len(augmentations) // len(self.split)
            description_index = rng.integers(n + 1, size=len(chosen))  # 0 is the canonical description
            augmented = len(self.split) + chosen * n + description_index - 1
            chosen = np.where(description_index == 0, chosen, augmented)
            chosen = chosen[self.source.lengths[chosen] <= self._max_length]
        if self.relatives is not None:
            reads = rng.random(len(chosen)) < recipe.relatives_share
            reads &= self.source.lengths[chosen + len(self.split)] <= self._max_length
            chosen = chosen + len(self.split) * reads
        return chosen

    def _is_augmented(self, epoch: int) -> bool:
        """Return whether an epoch starts within the augmented share of the schedule."""
        fitting = self._fitting(self.split)
        n_before = epoch * int(self.split.lengths[fitting].sum())
        return n_before < self.recipe.augmentation_share * (self.recipe.max_tokens or 0)

    def _n_replayed(self, n: int) -> int:
        """Return the number of replayed crystals for n others."""
        return round(n * self.recipe.replay_share / (1 - self.recipe.replay_share))

    def plan(self, epoch: int) -> list[PlannedBatch]:
        """Return the micro-batches of an epoch in order."""
        recipe, context = self.recipe, self.recipe.context
        rng = np.random.default_rng([recipe.seed, epoch])
        if recipe.packing == "random":
            offsets = rng.integers(len(self.split.stream), size=max(1, len(self.split.stream) // context))
            if self.replay is not None:
                replayed = rng.integers(len(self.replay.stream), size=self._n_replayed(len(offsets)))
                offsets = rng.permutation(np.concatenate([offsets, replayed + len(self.split.stream)]))
            return packing.cut(offsets, batch_tokens=recipe.batch_tokens, window=context)
        chosen = self.crystals(epoch)
        if recipe.packing == "packed":
            lengths = self.source.lengths
            return packing.plan(
                lengths,
                batch_tokens=recipe.batch_tokens,
                context=context,
                rng=rng,
                chosen=chosen,
                untaught=self.source.untaught,
            )
        chosen = self._fitting(self.split) if chosen is None else chosen
        n_windows = max(1, int(self.source.lengths[chosen].sum()) // context)
        offsets = self.source.starts[sample_evenly(chosen, n_windows, rng)]
        return packing.cut(offsets, batch_tokens=recipe.batch_tokens, window=context)

    def updates(
        self, epoch: int, batch: int, *, size: int, rank: int, n_ranks: int
    ) -> Iterator[UpdateBatches]:
        """Yield the batches of all updates from a position in the data on, for one of several processes.

        Args:
            size: micro-batches of an update; an update may span two epochs.
            rank: number of the process; it gets micro-batches k of an update with k % n_ranks == rank.
        """
        gathered: list[tuple[int, int, PlannedBatch]] = []
        while True:
            for number, planned in enumerate(self.plan(epoch)):
                if number < batch:
                    continue
                gathered.append((epoch, number, planned))
                if len(gathered) == size:
                    yield self._update(gathered, rank, n_ranks)
                    gathered = []
            epoch, batch = epoch + 1, 0

    def _update(
        self, gathered: list[tuple[int, int, PlannedBatch]], rank: int, n_ranks: int
    ) -> UpdateBatches:
        plans = [planned for _, _, planned in gathered]
        return UpdateBatches(
            [
                (_dropout_seed(self.recipe.seed, epoch, number), self._batch(epoch, number, planned))
                for epoch, number, planned in gathered[rank::n_ranks]
            ],
            epoch=gathered[-1][0],
            batch=gathered[-1][1] + 1,
            n_tokens=sum(planned.n_tokens for planned in plans),
            n_taught=sum(planned.n_taught for planned in plans),
            attended=sum(planned.n_tokens * planned.window for planned in plans),
        )

    def _batch(self, epoch: int, number: int, planned: PlannedBatch) -> packing.Batch:
        """Return a micro-batch, with some values hidden, decided by its position in the data."""
        batch = planned.fill(self.source, self.values)
        if batch.values is None:
            return batch
        rng = np.random.default_rng([self.recipe.seed, epoch, number, 2])
        return replace(batch, values=packing.hide(batch.values, self.recipe.condition_dropout, rng))


def _dropout_seed(*position: int) -> int:
    """Derive the dropout seed of a micro-batch from its position; a resumed run needs no generator state."""
    return int(np.random.SeedSequence(position).generate_state(1, np.uint64)[0] >> 1)


def sample_evenly(indices: Ids, n: int, rng: np.random.Generator) -> Ids:
    """Sample n of the indices at random; their counts differ by at most one."""
    rounds = [rng.permutation(indices) for _ in range(-(-n // max(1, len(indices))))]
    return np.concatenate([*rounds, indices[:0]])[:n]


def draw_by_weight(indices: Ids, weights: npt.NDArray[np.float64], rng: np.random.Generator) -> Ids:
    """Draw as many indices as there are, each its weight times, rounded up or down at random.

    Systematic sampling (Madow, Ann. Math. Stat. 20, 333, 1949).

    Args:
        indices: [n] to draw from.
        weights: [n] of mean 1.
    """
    order = rng.permutation(len(indices))
    edges = np.floor(np.cumsum(weights[order]) + rng.random())
    edges[-1:] = len(indices)  # corrects the rounding of the sum
    counts = np.diff(edges, prepend=0.0).astype(np.int64)
    return np.repeat(indices[order], counts)


def space_groups(split: TokenSplit, crystals: Ids) -> Ids:
    """Return the space group number of each crystal, [n].

    Raises:
        InputError: a crystal is not valid in the language of the split.
    """
    language = get_language(split.language)
    groups = np.zeros(len(crystals), dtype=np.int64)
    for i, crystal in enumerate(crystals.tolist()):
        try:
            groups[i] = language.read_prompt(split.crystal(crystal)[:_PROMPT_TOKENS].tolist())[1]
        except (TextError, InputError, IndexError, KeyError) as error:
            raise InputError(
                f"crystal {crystal} of the data set has no space group ({error}): prepare the data again, or "
                "train with rare_group_exponent = 0"
            ) from error
    return groups
