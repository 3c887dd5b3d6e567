"""Shared parts of both grammars: backtracking with its retry budgets, and prompts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Self

import numpy as np

from crystallm.errors import InputError
from crystallm.geometry import contacts
from crystallm.grammar.composition import CompositionConstraint

CONSTRAINTS = ("full", "syntax", "none")
ORBIT_RETRIES = 4
"""Of the coordinates of one orbit that leave others or atoms no room."""

CELL_RETRIES = 4
"""Of cell and coordinates together, where that does not help; of 100 cells the fifth cures 3."""

STRAY_CELL_RETRIES = 1
"""Of these for a wrong space group: of 76 one is cured, the orbits have more symmetry in any cell."""

WYCKOFF_RETRIES = 2
"""Of the choice of Wyckoff positions and all after it, where these do not help either."""

GROUP_RETRIES = 4
"""Of the space group and all after it; of the Wyckoff positions instead, if the group was requested."""

CRYSTAL_BOND_RETRIES = 6
"""Of a complete crystal for its bonds alone: 4 % of real crystals have implausible bonds."""

ORBIT_BOND_RETRIES = 10
"""The same where only orbits with implausible bonds and those after them are resampled, at half the cost."""

MAX_BACKTRACKED = 400
"""Tokens that are resampled in one sequence; 100 more cure 3 more of 1,000 crystals."""

NO_ATOMS = contacts.PlacedAtoms(np.zeros((3, 3)))
"""Before the cell is known; atoms are never added to it."""


@dataclass(frozen=True)
class GrammarOptions:
    """The request that a grammar is for, and its retry budgets.

    Attributes:
        strength: `full` or `syntax`.
        counts: the composition requested; None leaves it to the network.
        group: number of the space group requested; None leaves it to the network.
        retries: how often each part of a crystal is resampled, from the smallest part to the largest.
        bond_retries: how often a complete crystal is resampled for its bonds alone.
        max_backtracked: tokens that are resampled in all; None for any number.
        context: tokens that a sequence may have; None for any number.
        wanted: constraint on a composition that is left to the network; only for `full`.
    """

    strength: str
    counts: Mapping[str, int] | None = None
    group: int | None = None
    retries: tuple[int, ...] = ()
    bond_retries: int = 0
    max_backtracked: int | None = MAX_BACKTRACKED
    context: int | None = None
    wanted: CompositionConstraint | None = None


class BacktrackingState:
    """The state of a grammar: counts tokens, and backtracks where they put atoms too close.

    Args:
        vocabulary: tokens in the order of their ids, for messages.
    """

    def __init__(self, options: GrammarOptions, vocabulary: Sequence[str]) -> None:
        self.full = options.strength == "full"
        self.composition: dict[str, int] = {}
        self._requested_counts = options.counts if self.full else None
        self._requested_group = options.group
        self._wanted = options.wanted if self.full else None
        self._context = options.context
        self._vocabulary = vocabulary
        self._n_tokens = 0
        self._n_settled: float = 0  # tokens that backtracking keeps
        self._n_back = 0  # tokens that the last one removes
        self._retry_budget = options.retries
        self._retries = list(options.retries)  # left
        self._bond_retries = options.bond_retries  # left
        limit = options.max_backtracked
        self._backtrackable: float = inf if limit is None else limit  # left
        self._atoms = NO_ATOMS  # of complete orbits

    def allowed(self) -> Sequence[int]:
        """Return the allowed tokens; none after the end."""
        raise NotImplementedError

    def advance(self, token: int) -> int:
        """Take a token.

        Returns:
            The number of tokens, including this one, that are removed because they put atoms too close.

        Raises:
            InputError: it is not allowed here.
        """
        raise NotImplementedError

    def settle(self) -> None:
        """Keep all tokens so far: backtracking ends here."""
        self._n_settled = self._n_tokens

    def read(self, prompt: Iterable[int]) -> Self:
        """Advance through a prompt, which backtracking keeps, and return this state.

        Raises:
            InputError: the prompt breaks the grammar.
        """
        self._n_settled = inf
        for token in prompt:
            self.advance(token)
        self.settle()
        return self

    @property
    def _reads_prompt(self) -> bool:
        return self._n_settled > self._n_tokens

    def _backtrack(self, n_tokens: int) -> bool:
        """Remove the last tokens; return False if some are settled or the budget is spent."""
        if self._n_tokens - n_tokens < self._n_settled or n_tokens > self._backtrackable:
            return False
        self._backtrackable -= n_tokens
        self._n_back = n_tokens
        return True

    def _retry(self, part: int, n_tokens: int) -> bool:
        """Remove the last tokens if retries are left for this part of the crystal."""
        if not self._retries[part] or not self._backtrack(n_tokens):
            return False
        self._retries[part] -= 1
        return True

    def _fault(self, number: int) -> str:
        """Return what is wrong with the complete crystal; see `PlacedAtoms.fault`."""
        fault = self._atoms.fault(number, bonds_too=self._bond_retries > 0)
        self._bond_retries -= fault == "bonds"
        return fault

    def _refuse(self, token: int, allowed: Sequence[int]) -> InputError:
        """Return the error for a token that is not allowed."""
        name = self._vocabulary[token] if 0 <= token < len(self._vocabulary) else token
        names = " ".join(repr(self._vocabulary[i]) for i in allowed[:5]) or "nothing"
        return InputError(f"{name!r} is not allowed here; allowed: {names}{' ...' * (len(allowed) > 5)}")
