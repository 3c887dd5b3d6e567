"""Prefixes of token sequences: allowed next tokens, forced tokens, and the choices of a sequence.

A prefix ends where more than one token is allowed, or is a whole sequence. Forced tokens belong to the token
before them, so that a sequence has as many choices as its crystal has degrees of freedom. Does not depend on
networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.language import Language
    from crystallm.sampling.sequence import Grammar, GrammarState

Ids = tuple[int, ...]


@dataclass(frozen=True)
class PrefixExplorer:
    """Explores the prefixes of a language.

    Attributes:
        language: of the sequences.
        grammar: which tokens are allowed next; None for all.
        context: tokens that the network can read; a sequence of this length is complete.
    """

    language: Language
    grammar: Grammar | None
    context: int

    def is_complete(self, ids: Sequence[int], n_prompt: int = 0) -> bool:
        """Return whether a sequence has its end tokens, or fills the context.

        Args:
            ids: a prefix.
            n_prompt: tokens of the prompt, which are not an end.
        """
        end = self.language.end_ids
        has_end = len(ids) - n_prompt >= len(end) and tuple(ids[-len(end) :]) == end
        return has_end or len(ids) >= self.context

    def allowed(self, ids: Sequence[int]) -> Sequence[int] | None:
        """Return the tokens allowed after a prefix, None for all.

        Raises:
            InputError: the prefix breaks the grammar.
        """
        return None if self.grammar is None else self.grammar.start(ids).allowed()

    def with_forced(self, ids: Sequence[int], n_prompt: int = 0) -> Ids:
        """Return a prefix and all forced tokens after it.

        Raises:
            InputError: it breaks the grammar.
        """
        if self.grammar is None:
            return tuple(ids)
        return self._add_forced(list(ids), self.grammar.start(ids), n_prompt)

    def extend(self, ids: Sequence[int], continuation: Sequence[int], n_prompt: int = 0) -> Ids:
        """Return a prefix with as much of a continuation as is allowed, and all forced tokens after it.

        The continuation includes forced tokens.

        Raises:
            InputError: the prefix breaks the grammar.
        """
        if self.grammar is None:
            return (*ids, *continuation)
        extended, state = list(ids), self.grammar.start(ids)
        for token in continuation:
            allowed = state.allowed()
            if self.is_complete(extended, n_prompt) or allowed is None or token not in allowed:
                break
            extended.append(token)
            _take(state, token)
        return self._add_forced(extended, state, n_prompt)

    def choice_positions(self, ids: Sequence[int], n_prompt: int) -> list[int]:
        """Return the positions, after the prompt and within the context, at which a sequence had a choice.

        A sequence that the grammar accepts only with backtracking has those before that point.
        """
        positions = range(n_prompt, min(len(ids), self.context))
        if self.grammar is None:
            return list(positions)
        state = self.grammar.start(ids[:n_prompt])
        choices = []
        for position in positions:
            allowed = state.allowed()
            if allowed is None or len(allowed) > 1:
                choices.append(position)
            try:
                _take(state, ids[position])
            except InputError:
                break
        return choices

    def group_is_next(self, ids: Sequence[int]) -> bool:
        """Return whether the space group comes next after a prefix."""
        return self.language.group_is_next(ids, self.allowed(ids))

    def _add_forced(self, ids: list[int], state: GrammarState, n_prompt: int) -> Ids:
        while not self.is_complete(ids, n_prompt):
            allowed = state.allowed()
            if allowed is None or len(allowed) != 1:
                break
            ids.append(allowed[0])
            _take(state, allowed[0])
        return tuple(ids)


def _take(state: Any, token: int) -> None:
    """Advance a state without backtracking.

    Raises:
        InputError: the token is not allowed, or makes the grammar backtrack.
    """
    if hasattr(state, "settle"):
        # With all tokens before it settled, the grammar cannot remove this one.
        state.settle()
        n_removed = state.advance(token)
        if n_removed:
            raise InputError(f"the grammar removes {n_removed} tokens of a prefix")
        state.settle()
        return
    state.advance(token)
