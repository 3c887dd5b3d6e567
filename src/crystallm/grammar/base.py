"""The state of a grammar, prompts, retry budgets, and what is taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable


CONSTRAINTS = ("full", "syntax", "none")

REWRITES = 4  # of one orbit's coordinates, where they put atoms too close

UNGUIDED = 2  # of these in a text, before an orbit's last coordinate is kept to values that leave atoms room

CELL_REWRITES = 4  # of cell and coordinates together, where those do not help; of 100 cells the 5th cures 3

STRAY_CELLS = 1  # of these for another group than was written: 1 of 76 cures, the orbits have more symmetry

ORBIT_REWRITES = 2  # of the choice of Wyckoff positions and all behind it, where those do not help either

GROUP_REWRITES = 4  # of the space group and all behind it; of the orbits once more, if it was asked for

BOND_REWRITES = 6  # of all these, for bonds alone: 4 % of real crystals have odd bonds, and are let be then

ODD_REWRITES = (
    10  # the same where only orbits with odd bonds and those behind are taken back, at half the cost
)

WORK = 400  # tokens taken back in a text, in all; 100 more cure 3 more of 1,000 crystals


class State(Protocol):
    """What the automata of both languages have in common."""

    def advance(self, token: int) -> int:
        """Take a token; see `decode.RowState`."""
        ...

    def settle(self) -> None:
        """Hold on to all that has been taken so far."""
        ...


AnyState = TypeVar("AnyState", bound=State)


def behind(state: AnyState, prompt: Iterable[int]) -> AnyState:
    """A state led through a prompt, of which nothing is taken back.

    Raises:
        InputError: the prompt breaks the rules.
    """
    for token in prompt:
        state.advance(token)
        state.settle()
    return state
