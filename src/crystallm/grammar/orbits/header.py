"""The first part of an orbits sequence: composition and space group."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from crystallm.crystallography import elements, space_groups
from crystallm.crystallography.space_groups import SpaceGroup
from crystallm.grammar.base import BacktrackingState, GrammarOptions
from crystallm.grammar.orbits import token_options
from crystallm.orbits import vocabulary


class OrbitsHeaderState(BacktrackingState):
    """State up to the space group; `_begin_orbits` continues.

    Each step is a pair of methods: one returns the allowed tokens, the other takes a token and sets the next
    step.
    """

    def __init__(self, options: GrammarOptions) -> None:
        super().__init__(options, vocabulary.vocabulary())
        self.group: SpaceGroup | None = None
        self._pending = 0  # the first digits of the number at hand
        self._pending_symbol = ""  # the element whose count is at hand
        self._group_start = 0  # tokens before the group
        self._options: Sequence[int] | None = None
        self._list_options: Callable[[], Sequence[int]] = self._start_options
        self._take: Callable[[int], None] = self._take_start

    def allowed(self) -> Sequence[int]:
        """Return the allowed tokens; none after the end."""
        if self._options is None:
            self._options = self._list_options()
        return self._options

    def advance(self, token: int) -> int:
        """Take a token; see `BacktrackingState.advance`."""
        allowed = self.allowed()
        if token not in allowed:
            raise self._refuse(token, allowed)
        self._options, self._n_back = None, 0
        self._n_tokens += 1
        self._take(token)
        self._n_tokens -= self._n_back
        return self._n_back

    def _next(self, options: Callable[[], Sequence[int]], take: Callable[[int], None]) -> None:
        """Set the next step."""
        self._list_options, self._take = options, take

    def _begin_orbits(self) -> None:
        """Continue with the first orbit."""
        raise NotImplementedError

    def _start_options(self) -> Sequence[int]:
        return token_options.alone(vocabulary.families().start)

    def _take_start(self, token: int) -> None:  # noqa: ARG002 - there is only one
        self._next(self._element_options, self._take_element)

    def _element_options(self) -> Sequence[int]:
        """Return elements of the composition, and space groups once it may end."""
        ids, rank = token_options.element_ids(), token_options.rank()
        if self._requested_counts is not None:
            missing = [s for s in self._requested_counts if s not in self.composition]
            if not missing:
                return self._group_options()
            return token_options.alone(ids[min(missing, key=rank.__getitem__)])
        if self._wanted is not None:
            following = [ids[s] for s in self._wanted.following(self.composition)]
            may_end = self._wanted.may_end(self.composition)
            return [*following, *self._group_options()] if may_end else following
        if self.full:
            last = max((rank[s] for s in self.composition), default=-1)
            open_symbols = [s for s, r in rank.items() if r > last]
        else:
            open_symbols = [s for s in rank if s not in self.composition]
        following = [ids[s] for s in open_symbols]
        return [*following, *self._group_options()] if self.composition else following

    def _take_element(self, token: int) -> None:
        family = vocabulary.families()
        if token < family.hundreds:
            self._pending_symbol = elements.symbols()[token - family.element]
            self._next(self._count_options, self._take_count)
        else:
            self.group = space_groups.get(token - family.group + 1)
            self._group_start = self._n_tokens - 1
            self._begin_orbits()

    def _group_options(self) -> Sequence[int]:
        first = vocabulary.families().group
        if not self.full:
            return token_options.between(first, first + 230)
        if self._requested_group is not None:
            return token_options.alone(first + self._requested_group - 1)
        return token_options.groups(tuple(sorted(self.composition.values())), self._context)

    def _count_options(self) -> Sequence[int]:
        """Return counts below 100, and the hundreds of others."""
        family = vocabulary.families()
        if self._requested_counts is not None:
            count = self._requested_counts[self._pending_symbol]
            first = family.hundreds + count // 100 - 1 if count >= 100 else family.number + count
            return token_options.alone(first)
        if self._wanted is not None:
            return token_options.counts(self._wanted.counts(self.composition, self._pending_symbol))
        return [*range(family.hundreds, family.number), *range(family.number + 1, family.group)]

    def _take_count(self, token: int) -> None:
        family = vocabulary.families()
        if token < family.number:
            self._pending = 100 * (token - family.hundreds + 1)
            self._next(self._last_digits_options, self._take_last_digits)
        else:
            self._add_count(token - family.number)

    def _last_digits_options(self) -> Sequence[int]:
        """Return the last two digits of a count from 100 on."""
        family = vocabulary.families()
        if self._requested_counts is not None:
            return token_options.alone(family.number + self._requested_counts[self._pending_symbol] % 100)
        if self._wanted is not None:
            counts = self._wanted.counts(self.composition, self._pending_symbol)
            return token_options.last_digits(counts, self._pending)
        return token_options.between(family.number, family.group)

    def _take_last_digits(self, token: int) -> None:
        self._add_count(self._pending + token - vocabulary.families().number)

    def _add_count(self, count: int) -> None:
        self.composition[self._pending_symbol] = count
        self._next(self._element_options, self._take_element)

    def _known_group(self) -> SpaceGroup:
        if self.group is None:
            raise AssertionError("a step after the space group was reached without one")
        return self.group
