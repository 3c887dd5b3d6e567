"""The last part of an orbits sequence: free coordinates, orbit by orbit, then the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from crystallm.crystallography.space_groups import Bools, Floats
from crystallm.grammar.base import GrammarOptions
from crystallm.grammar.orbits import coordinates, token_options
from crystallm.grammar.orbits.header import OrbitsHeaderState
from crystallm.orbits import description, vocabulary


@dataclass
class PlacedOrbit:
    """An orbit at hand: element, index of its Wyckoff position, coordinates so far (thousandths)."""

    element: str
    index: int
    values: list[int] = field(default_factory=list)


class OrbitsCoordinateState(OrbitsHeaderState):
    """State of the coordinates; what stands between group and coordinates is for a subclass.

    The last coordinate of each orbit is limited to the values that leave its atoms room, but for those of a
    prompt. Where none does, the coordinate before it is resampled, or more.
    """

    def __init__(self, options: GrammarOptions) -> None:
        super().__init__(options)
        self.placed: list[PlacedOrbit] = []
        self._orbit = 0  # whose coordinates are at hand
        self._clear: Bools | None = None  # values of the coordinate at hand that leave atoms room, if known

    def _restart(self) -> bool:
        """Backtrack further than the coordinates of one orbit; return False if that is not allowed."""
        raise NotImplementedError

    def _repair(self) -> bool:
        """Backtrack in a complete crystal with a fault; return False if it is kept."""
        raise NotImplementedError

    def _n_free(self, orbit: PlacedOrbit) -> int:
        """Return the number of free coordinates of an orbit."""
        return len(self._known_group().wyckoff[orbit.index].free)

    def _next_orbit(self) -> None:
        """Continue with the next orbit that has free coordinates, or with the end."""
        self._orbit += 1
        while self._orbit < len(self.placed) and not self._n_free(self.placed[self._orbit]):
            self._orbit += 1
        if self._orbit < len(self.placed):
            self._begin_coordinate()
        elif not (self.full and self._repair()):
            self._next(self._end_options, self._take_end)

    def _begin_coordinate(self) -> None:
        """Continue with the next coordinate of the orbit at hand, or backtrack where none leaves room."""
        orbit = self.placed[self._orbit]
        last = len(orbit.values) + 1 == self._n_free(orbit)
        self._clear = self._room(orbit) if self.full and last and not self._reads_prompt else None
        if self._clear is not None and not self._clear.any():
            if self._restart_coordinate():
                return
            self._clear = None
        self._next(self._coarse_options, self._take_coarse)

    def _room(self, orbit: PlacedOrbit) -> Bools:
        """Return which values of the last coordinate of an orbit leave its atoms room."""
        matrices, shifts = self._known_group().orbit_maps[orbit.index]
        known = matrices[:, :, :-1] @ (np.array(orbit.values) / description.STEPS)
        return self._atoms.clear((matrices[:, :, -1], known + shifts), description.STEPS, orbit.element)

    def _restart_coordinate(self) -> bool:
        """Backtrack to the last coordinate of the orbit at hand, or further; return False if not allowed."""
        values = self.placed[self._orbit].values
        if not values or not self._retry(0, 2):
            return self._restart()
        values.pop()
        self._begin_coordinate()
        return True

    # --- hundredths ---

    def _coarse_options(self) -> Sequence[int]:
        family = vocabulary.families()
        lowest = self._lowest()
        if self._clear is not None:
            # Order is a matter of form: where it leaves no room, out of order is a crystal still.
            first = lowest if self._clear[lowest:].any() else 0
            clear = self._clear.copy()
            clear[:first] = False
            able = np.flatnonzero(clear.reshape(-1, 10).any(axis=1))
            return token_options.shifted(family.coarse, tuple(able.tolist()))
        first = lowest // 10
        if first and not self._has_room(lowest):
            first = 0  # order is a matter of form; two atoms on one point are not
        if full := self._full_tens():
            tens = [ten for ten in range(description.STEPS // 10) if ten not in full]
            in_order = [ten for ten in tens if ten >= first]
            return token_options.shifted(
                family.coarse, tuple(in_order or tens or range(description.STEPS // 10))
            )
        return token_options.between(family.coarse + first, family.fine)

    def _take_coarse(self, token: int) -> None:
        self._pending = 10 * (token - vocabulary.families().coarse)
        self._next(self._fine_options, self._take_fine)

    def _lowest(self) -> int:
        """Return the smallest next coordinate that keeps equal orbits in order."""
        orbit = self.placed[self._orbit]
        if not self.full or not self._orbit:
            return 0
        before = self.placed[self._orbit - 1]
        same = (before.element, before.index) == (orbit.element, orbit.index)
        done = len(orbit.values)
        return before.values[done] if same and before.values[:done] == orbit.values else 0

    def _has_room(self, lowest: int) -> bool:
        """Return whether a coordinate of this value or a higher one is left for an orbit."""
        orbit = self.placed[self._orbit]
        if len(orbit.values) + 1 < self._n_free(orbit):
            return True
        tens = range(lowest // 10 * 10, description.STEPS, 10)
        return any(first + d >= lowest for first in tens for d in self._staying(first))

    def _full_tens(self) -> frozenset[int]:
        """Return the tens of the last coordinate of an orbit of which other orbits have taken all values."""
        orbit = self.placed[self._orbit]
        if not self.full or len(orbit.values) + 1 < self._n_free(orbit):
            return frozenset()
        before = self._on_same_position(orbit)
        if len(before) < coordinates.CROWD:
            return frozenset()
        return coordinates.full_tens(self._known_group().number, orbit.index, tuple(orbit.values), before)

    # --- thousandths ---

    def _fine_options(self) -> Sequence[int]:
        family = vocabulary.families()
        if not self.full:
            return token_options.between(family.fine, family.size)
        stays, lowest = self._staying(self._pending), self._lowest() - self._pending
        in_order = stays if lowest <= 0 else tuple(d for d in stays if d >= lowest)
        clear: tuple[int, ...] = ()
        if self._clear is not None:
            here = self._clear[self._pending : self._pending + 10].tolist()
            clear = tuple(d for d in in_order if here[d]) or tuple(d for d in stays if here[d])
        # Order is a matter of form: where it leaves nothing (after 0.999), out of order is a crystal still.
        return token_options.shifted(family.fine, clear or in_order or stays or coordinates.DIGITS)

    def _take_fine(self, token: int) -> None:
        orbit = self.placed[self._orbit]
        orbit.values.append(self._pending + token - vocabulary.families().fine)
        if len(orbit.values) < self._n_free(orbit):
            self._begin_coordinate()
        elif not self.full:
            self._next_orbit()
        else:
            self._place(orbit)

    def _staying(self, first: int) -> tuple[int, ...]:
        """Return the last digits with which an orbit keeps its multiplicity and meets no orbit before it.

        Args:
            first: the next coordinate with a last digit of 0.
        """
        group, orbit = self._known_group(), self.placed[self._orbit]
        values = (*orbit.values, first)
        kept = coordinates.keeping(group.number, orbit.index, values)
        if len(values) < self._n_free(orbit):
            return kept
        before = self._on_same_position(orbit)
        return coordinates.apart(group.number, orbit.index, values, kept, before) if before else kept

    def _on_same_position(self, orbit: PlacedOrbit) -> list[list[int]]:
        """Return the coordinates of the orbits before one on the same Wyckoff position."""
        return [other.values for other in self.placed[: self._orbit] if other.index == orbit.index]

    def _place(self, orbit: PlacedOrbit) -> None:
        """Put a complete orbit into the cell, or backtrack where it is too close."""
        matrices, shifts = self._known_group().orbit_maps[orbit.index]
        # Fractions in [0, 1), [multiplicity, 3], the representative first.
        own: Floats = (matrices @ (np.array(orbit.values) / description.STEPS) + shifts) % 1.0 % 1.0
        if self._clear is None:
            meets = self._atoms.meets(own, orbit.element)
        else:
            meets = not self._clear[orbit.values[-1]]
        if meets and self._restart_coordinate():
            return
        self._retries[0] = self._retry_budget[0]
        self._atoms.add(own, orbit.element)
        self._next_orbit()

    def _end_options(self) -> Sequence[int]:
        return token_options.alone(vocabulary.families().end)

    def _take_end(self, token: int) -> None:  # noqa: ARG002 - there is only one
        self._next(tuple, self._take_end)
