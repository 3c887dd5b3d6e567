"""Beginnings of texts: where one may choose, what follows without a choice, and which choices a text made.

A beginning is the tokens of a text up to a place where more than one token may come, or a whole text. What
the rules force belongs to the token before it, so that a text is as many choices as its crystal has freedom.
Knows tokens and rules; refuses to know networks and what a choice is worth.
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
    """How texts of a language may begin.

    Attributes:
        rules: which tokens may come next; None for all.
        context: tokens that the network can read; a text of so many is at its end.
    """

    language: Language
    rules: Grammar | None
    context: int

    def complete(self, ids: Sequence[int], n_prompt: int = 0) -> bool:
        """Whether a text is at its end: it has been written, or nothing may be written any more."""
        end = self.language.end_ids
        written = len(ids) - n_prompt >= len(end) and tuple(ids[-len(end) :]) == end
        return written or len(ids) >= self.context

    def options(self, ids: Sequence[int]) -> Sequence[int] | None:
        """Tokens that may come behind a beginning, None for all.

        Raises:
            InputError: the beginning breaks the rules.
        """
        return None if self.rules is None else self.rules.start(ids).allowed()

    def settled(self, ids: Sequence[int], n_prompt: int = 0) -> Ids:
        """A beginning and all that must come behind it. Raises InputError: it breaks the rules."""
        if self.rules is None:
            return tuple(ids)
        return self._forced(list(ids), self.rules.start(ids), n_prompt)

    def followed(self, ids: Sequence[int], wish: Sequence[int], n_prompt: int = 0) -> Ids:
        """A beginning with as much of a wished continuation as may be, and all that must come.

        Where the rules force a token it is written and the wish's token passed over, so the wish has to tell
        every token.

        Raises:
            InputError: the beginning breaks the rules.
        """
        if self.rules is None:
            return (*ids, *wish)
        found, state = list(ids), self.rules.start(ids)
        for token in wish:
            allowed = state.allowed()
            if self.complete(found, n_prompt) or allowed is None or token not in allowed:
                break
            found.append(token)
            _take(state, token)
        return self._forced(found, state, n_prompt)

    def choices(self, ids: Sequence[int], n_prompt: int) -> list[int]:
        """Places behind the prompt, and in the context, at which a text had a choice.

        A text that the rules would not let through as it stands, since it was mended where they bound how
        often, has those before that place.
        """
        places = range(n_prompt, min(len(ids), self.context))
        if self.rules is None:
            return list(places)
        state = self.rules.start(ids[:n_prompt])
        found = []
        for place in places:
            allowed = state.allowed()
            if allowed is None or len(allowed) > 1:
                found.append(place)
            try:
                _take(state, ids[place])
            except InputError:
                break
        return found

    def names_group(self, ids: Sequence[int]) -> bool:
        """Whether the space group comes next behind a beginning."""
        return self.language.group_is_next(ids, self.options(ids))

    def _forced(self, found: list[int], state: GrammarState, n_prompt: int) -> Ids:
        while not self.complete(found, n_prompt):
            allowed = state.allowed()
            if allowed is None or len(allowed) != 1:
                break
            found.append(allowed[0])
            _take(state, allowed[0])
        return tuple(found)


def _take(state: Any, token: int) -> None:
    """Let a state take a token for good: a beginning is not mended."""
    if hasattr(state, "settle"):
        # What is forbidden to be taken back is all before the token, and so the token too.
        state.settle()
        back = state.advance(token)
        if back:
            raise InputError(f"the rules take back {back} tokens of a beginning")
        state.settle()
        return
    state.advance(token)
