"""The rules of the orbits language: what may come next in its texts, and what must.

A state answers two questions, `allowed()` and `advance(token)`; every choice it allows can be completed to a
crystal with the composition asked for. Atoms that would stand too close are taken back and written anew,
after a few times with the last coordinate of each orbit kept to the values that leave its atoms room. So is a
crystal in which spglib finds another group than the one written, or with bonds that chemistry does not know:
first the coordinates (for odd bonds from the first orbit on that has them), then the cell, then the choice of
orbits, at last the group if it was not asked for, each a bounded number of times, and of all tokens no more
than `grammar.WORK`.

Builds on the core in `grammar`; refuses to know networks, probabilities and structures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, floor, inf
from typing import TYPE_CHECKING

import numpy as np

from crystallm.crystallography import cells, elements, space_groups, wyckoff_assignment
from crystallm.errors import InputError
from crystallm.geometry import contacts
from crystallm.grammar import base, text_length
from crystallm.grammar.orbits import coordinates, token_options
from crystallm.orbits import description, vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.crystallography.space_groups import Bools, Floats, SpaceGroup
    from crystallm.grammar.composition import CompositionConstraint


REWRITES = (base.REWRITES, base.CELL_REWRITES, base.ORBIT_REWRITES, base.GROUP_REWRITES)

_NO_ATOMS = contacts.PlacedAtoms(np.zeros((3, 3)))  # none is added to these


@dataclass
class _Placed:
    """An orbit as it is being written."""

    element: str
    index: int
    values: list[int] = field(default_factory=list)


class OrbitsGrammarState:
    """Where a text of the orbits language stands, and what may follow.

    Args:
        strength: `full` or `syntax`.
        counts: the composition asked for, if one was.
        group: the space group asked for, if one was.
        rewrites: how often coordinates of one orbit may be taken back, cell and coordinates, orbits and all
            behind them, the group and all behind it; of the orbits instead, if the group was asked for.
        context: tokens that the text may have; None for any number.
        bond_rewrites: how often what is complete may be taken back for its bonds alone.
        work: tokens that may be taken back in all; None for any number.
        wanted: what is asked of the composition where it is not given.
    """

    def __init__(
        self,
        strength: str,
        counts: dict[str, int] | None = None,
        group: int | None = None,
        *,
        rewrites: tuple[int, int, int, int] = REWRITES,
        context: int | None = None,
        bond_rewrites: int = base.ODD_REWRITES,
        work: int | None = base.WORK,
        wanted: CompositionConstraint | None = None,
    ) -> None:
        self.full = strength == "full"
        self._wanted = wanted if self.full else None
        self.asked_counts = counts
        self.asked_group = group
        self.composition: dict[str, int] = {}
        self.group: SpaceGroup | None = None
        self.placed: list[_Placed] = []
        self.cell: list[int] = []
        self._part = self._start
        self._pending = 0  # the first digits of a number that is being written
        self._pending_symbol = ""  # the element whose count is being written
        self._left: dict[str, int] = {}  # atoms of each element still to place
        self._taken: frozenset[int] = frozenset()  # fixed positions in use
        self._strays = 0  # crystals of these orbits that had another group
        self._refused = 0  # orbits that were taken back since they met others
        self._clear: Bools | None = None  # values of the coordinate at hand that leave atoms room, if known
        self._orbit = 0  # whose coordinates are being written
        self._options: Sequence[int] | None = None
        self._n_tokens = 0
        self._floor = 0  # tokens that may not be taken back: the prompt
        self._context = context
        self._tight = False  # whether the rest may outgrow the context
        self._group_start = self._cell_start = 0  # tokens before each of them
        self._back = 0
        if group is not None:
            rewrites = (*rewrites[:2], rewrites[2] + rewrites[3], 0)
        self._budget = rewrites
        self._bond_rewrites = bond_rewrites
        self._rewrites = list(rewrites)  # left: of the orbit at hand, of cell, orbits, group
        self._work = inf if work is None else work  # tokens that may still be taken back
        self._atoms = _NO_ATOMS  # those with known places

    def settle(self) -> None:
        """Hold on to all that has been taken so far."""
        self._floor = self._n_tokens

    def allowed(self) -> Sequence[int]:
        """Tokens that may come next; empty after the end."""
        if self._options is None:
            self._options = self._part(None)
        return self._options

    def advance(self, token: int) -> int:
        """Take a token.

        Returns:
            How many tokens, this one among them, were taken back since they put atoms too close.

        Raises:
            InputError: it may not come here.
        """
        allowed = self.allowed()
        if token not in allowed:
            here = " ".join(vocabulary.vocabulary()[i] for i in list(allowed)[:5])
            name = vocabulary.vocabulary()[token] if 0 <= token < len(vocabulary.vocabulary()) else token
            raise InputError(
                f"{name!r} may not come here; {here or 'nothing'}{' ...' if len(allowed) > 5 else ''} may"
            )
        self._options, self._back = None, 0
        self._n_tokens += 1
        self._part(token)
        self._n_tokens -= self._back
        return self._back

    # Each part is a function of a token: None asks for the options, a token takes it and sets the next part.

    def _start(self, token: int | None) -> Sequence[int]:
        if token is not None:
            self._part = self._element
        return token_options.alone(vocabulary.families().start)

    def _element(self, token: int | None) -> Sequence[int]:
        """An element of the composition, or the space group behind it."""
        family = vocabulary.families()
        if token is not None:
            if token < family.hundreds:
                self._pending_symbol = elements.symbols()[token - family.element]
                self._part = self._count
            else:
                self._take_group(token - family.group + 1)
            return ()
        if self.asked_counts is not None and self.full:
            missing = [s for s in self.asked_counts if s not in self.composition]
            if not missing:
                return self._group_options()
            return token_options.alone(
                token_options.element_ids()[min(missing, key=token_options.rank().__getitem__)]
            )
        if self._wanted is not None:
            found = [token_options.element_ids()[s] for s in self._wanted.following(self.composition)]
            return [*found, *self._group_options()] if self._wanted.may_end(self.composition) else found
        ranks = [token_options.rank()[s] for s in self.composition]
        open_symbols = [s for s, r in token_options.rank().items() if not ranks or r > max(ranks)]
        if not self.full:
            open_symbols = [s for s in token_options.rank() if s not in self.composition]
        found = [token_options.element_ids()[s] for s in open_symbols]
        return [*found, *self._group_options()] if self.composition else found

    def _group_options(self) -> Sequence[int]:
        first = vocabulary.families().group
        if not self.full:
            return token_options.between(first, first + 230)
        if self.asked_group is not None:
            return token_options.alone(first + self.asked_group - 1)
        return token_options.groups(tuple(sorted(self.composition.values())), self._context)

    def _count(self, token: int | None) -> Sequence[int]:
        family = vocabulary.families()
        if token is not None:
            if token < family.number:
                self._pending = 100 * (token - family.hundreds + 1)
                self._part = self._units
            else:
                self._add_count(token - family.number)
            return ()
        if self.full and self.asked_counts is not None:
            count = self.asked_counts[self._pending_symbol]
            first = family.hundreds + count // 100 - 1 if count >= 100 else family.number + count
            return token_options.alone(first)
        if self._wanted is not None:
            return token_options.counts(self._wanted.counts(self.composition, self._pending_symbol))
        return [*range(family.hundreds, family.number), *range(family.number + 1, family.group)]

    def _units(self, token: int | None) -> Sequence[int]:
        family = vocabulary.families()
        if token is not None:
            self._add_count(self._pending + token - family.number)
            return ()
        if self.full and self.asked_counts is not None:
            return token_options.alone(family.number + self.asked_counts[self._pending_symbol] % 100)
        if self._wanted is not None:
            able = self._wanted.counts(self.composition, self._pending_symbol)
            return token_options.units(able, self._pending)
        return token_options.between(family.number, family.group)

    def _add_count(self, count: int) -> None:
        self.composition[self._pending_symbol] = count
        self._part = self._element

    def _take_group(self, number: int) -> None:
        self.group = space_groups.get(number)
        self._group_start = self._n_tokens - 1
        self._tight = self._context is not None and text_length.may_outgrow(
            self.composition.values(), self._context
        )
        self._begin_orbits()

    def _begin_orbits(self) -> None:
        self._left = dict(self.composition)
        self._taken = frozenset()
        self._strays = 0
        self.placed.clear()
        self.cell.clear()
        self._part = self._orbit_element

    # orbits: element and position

    def _orbit_element(self, token: int | None) -> Sequence[int]:
        group = self._known_group()
        if token is not None:
            if token >= vocabulary.families().volume:
                self._part = self._tens
                return self._part(token)
            symbol = elements.symbols()[token - vocabulary.families().element]
            self.placed.append(_Placed(symbol, -1))
            self._part = self._orbit_label
            return ()
        if self.full:
            current = next((s for s, n in self._left.items() if n), None)
            return (
                self._tens_options()
                if current is None
                else token_options.alone(token_options.element_ids()[current])
            )
        if len(self._taken) == len(group.wyckoff):
            return self._tens_options()  # no free position in this group, and all fixed ones are full
        found = [token_options.element_ids()[s] for s in self.composition]
        return [*found, *self._tens_options()] if self.placed else found

    def _orbit_label(self, token: int | None) -> Sequence[int]:
        group = self._known_group()
        orbit = self.placed[-1]
        if token is not None:
            orbit.index = token_options.label_ids(group.number).index(token)
            if not group.wyckoff[orbit.index].free:
                self._taken |= {orbit.index}
            self._left[orbit.element] -= group.wyckoff[orbit.index].multiplicity
            self._part = self._orbit_element
            return ()
        if not self.full:
            free = tuple(i for i in range(len(group.wyckoff)) if i not in self._taken)
            return token_options.labels(group.number, free)
        # Orbits of an element follow each other, in order.
        same = len(self.placed) > 1 and self.placed[-2].element == orbit.element
        first = self.placed[-2].index if same else 0
        later = tuple(sorted(n for s, n in self._left.items() if n and s != orbit.element))
        fitting = wyckoff_assignment.labels_allowed(
            group.number, self._taken, first, self._left[orbit.element], later
        )
        if self._tight:
            fitting = tuple(i for i in fitting if self._has_tokens(i, later)) or fitting
        return token_options.labels(group.number, fitting)

    def _has_tokens(self, index: int, later: tuple[int, ...]) -> bool:
        """Whether the context holds the rest of the text if an orbit is put on this position next."""
        group = self._known_group()
        position = group.wyckoff[index]
        owed = [
            position,
            *(group.wyckoff[o.index] for o in self.placed[:-1]),
        ]  # orbits whose digits come later
        digits = sum(text_length.orbit_tokens(len(w.free)) - 2 for w in owed)
        left = self._left[self.placed[-1].element] - position.multiplicity
        taken = self._taken if position.free else self._taken | {index}
        rest = text_length.fewest_tokens(group.number, later, taken, index, left)
        return self._n_tokens + 1 + digits + rest + 2 * len(group.free_cell) + 1 <= (self._context or 0)

    # cell

    def _tens_options(self) -> Sequence[int]:
        """First tokens of the next number of the cell."""
        name = self._known_group().free_cell[len(self.cell)]
        first, written = token_options.tens_of(name)
        if not self.full or name not in ("a", "gamma"):
            return token_options.between(first, first + len(written))
        if name == "a":
            steps = token_options.volume_steps(tuple(self.composition.items()))
            return token_options.tens_between(name, steps[0] // 10, steps[-1] // 10)
        # A cell has a volume if |alpha - beta| < gamma < alpha + beta and the three add up to less than 360.
        alpha, beta = self.cell[-2] / 10, self.cell[-1] / 10
        low, high = ceil(abs(alpha - beta) + 1), floor(min(alpha + beta, 360 - alpha - beta) - 2)
        return token_options.tens_between(name, low, high)

    def _tens(self, token: int | None) -> Sequence[int]:
        if token is None:
            return self._tens_options()
        if not self.cell:
            self._cell_start = self._n_tokens - 1
        first, written = token_options.tens_of(self._known_group().free_cell[len(self.cell)])
        self._pending = 10 * (token - first + written[0])
        self._part = self._rest
        return ()

    def _rest(self, token: int | None) -> Sequence[int]:
        family, group = vocabulary.families(), self._known_group()
        if token is None:
            if not self.full or self.cell:
                return token_options.between(family.rest, family.coarse)
            steps = token_options.volume_steps(tuple(self.composition.items()))
            low, behind = max(steps.start - self._pending, 0), min(steps.stop - self._pending, 10)
            return token_options.between(family.rest + low, family.rest + behind)
        self.cell.append(self._pending + token - family.rest)
        if len(self.cell) < len(group.free_cell):
            self._part = self._tens
        elif not (self.full and self._cell_fails() and self._restart()):
            self._orbit = -1
            self._next_orbit()
        return ()

    # What stands too close is taken back and written anew, a bounded number of times.

    def _cell_fails(self) -> bool:
        """Whether atoms on fixed positions meet."""
        group = self._known_group()
        parameters = description.cell_parameters(self.composition.items(), group, self.cell)
        self._atoms = contacts.PlacedAtoms(cells.lattice(parameters))
        fails = False
        for orbit in self.placed:
            if not group.wyckoff[orbit.index].free:
                own = coordinates.fixed_points(group.number, orbit.index)
                fails = fails or self._atoms.meets(own, orbit.element)
                self._atoms.add(own, orbit.element)
        return fails

    def _images(self, orbit: _Placed) -> Floats:
        """The atoms [multiplicity, 3] of an orbit, fractions in [0, 1), the representative first."""
        matrices, shifts = self._known_group().orbit_maps[orbit.index]
        return np.asarray((matrices @ (np.array(orbit.values) / description.STEPS) + shifts) % 1.0 % 1.0)

    def _take_back(self, budget: int, n_tokens: int) -> bool:
        if not self._rewrites[budget] or not self._spend(n_tokens):
            return False
        self._rewrites[budget] -= 1
        return True

    def _spend(self, n_tokens: int) -> bool:
        """Take tokens back if they are none of the prompt's and the work that is left allows."""
        if self._n_tokens - n_tokens < self._floor or n_tokens > self._work:
            return False
        self._work -= n_tokens
        self._back = n_tokens
        return True

    def _restart(self) -> bool:
        """Take back the cell and what is behind it; where that did not help, the orbits, then the group."""
        return self._restart_cell() or self._restart_orbits() or self._restart_group()

    def _restart_orbits(self) -> bool:
        start = self._group_start + 1
        if not self._take_back(2, self._n_tokens - start):
            return False
        self._rewrites[:2] = self._budget[0], self._budget[1] // 2
        self._begin_orbits()
        return True

    def _restart_group(self) -> bool:
        if self.asked_group is not None or not self._take_back(3, self._n_tokens - self._group_start):
            return False
        self._rewrites[:3] = self._budget[0], self._budget[1] // 2, 1
        self.group = None
        self._begin_orbits()
        self._part = self._element
        return True

    def _restart_cell(self) -> bool:
        if not self._take_back(1, self._n_tokens - self._cell_start):
            return False
        self._rewrites[0] = self._budget[0]
        self.cell.clear()
        for orbit in self.placed:
            orbit.values.clear()
        self._part = self._tens
        return True

    def _restart_odd(self) -> bool:
        """Take back the first orbit that has odd bonds with those before it or itself, and what is behind.

        It cures as many crystals as to take back all coordinates, for half of the tokens.
        """
        group = self._known_group()
        free = [i for i, orbit in enumerate(self.placed) if group.wyckoff[orbit.index].free]
        n_fixed = len(self.placed) - len(free)  # these are placed before the others
        first = min(max(ends) for ends in self._atoms.odd) - n_fixed
        if first < 0:
            return False  # the cell is to blame
        behind = [self.placed[i] for i in free[first:]]
        if not self._spend(sum(2 * len(orbit.values) for orbit in behind)):
            return False
        for orbit in behind:
            orbit.values.clear()
        self._atoms.keep(n_fixed + first)
        self._rewrites[0] = self._budget[0]
        self._orbit = free[first]
        self._part = self._coarse
        return True

    def _restart_orbit(self, orbit: _Placed) -> bool:
        if not self._take_back(0, 2 * len(orbit.values)):
            return False
        orbit.values.clear()
        self._part = self._coarse
        return True

    # coordinates

    def _next_orbit(self) -> None:
        group = self._known_group()
        self._orbit += 1
        while self._orbit < len(self.placed) and not group.wyckoff[self.placed[self._orbit].index].free:
            self._orbit += 1
        if self._orbit < len(self.placed):
            self._part = self._coarse
        elif not (self.full and self._may_mend() and self._mend(self._fault())):
            self._part = self._end

    def _may_mend(self) -> bool:
        """Whether a complete crystal may be taken back: if not, nobody need ask what is wrong with it."""
        return any(self._rewrites[1:]) and self._work > 0

    def _fault(self) -> str:
        """What is wrong with the crystal, now that it is complete; see `contacts.Atoms.fault`."""
        fault = self._atoms.fault(self._known_group().number, bonds_too=self._bond_rewrites > 0)
        self._bond_rewrites -= fault == "bonds"
        self._strays += fault == "group"
        return fault

    def _mend(self, fault: str) -> bool:
        """Take back what a fault of the complete crystal may come from."""
        if not fault:
            return False
        if fault == "bonds":
            if self._restart_odd():
                return True
            self._rewrites[1] += 1  # they have a bound of their own
        if self._strays > base.STRAY_CELLS:  # most often the orbits have more symmetry in any cell
            return self._restart_orbits() or self._restart_group() or self._restart_cell()
        return self._restart()

    def _coarse(self, token: int | None) -> Sequence[int]:
        family = vocabulary.families()
        if token is not None:
            self._pending = 10 * (token - family.coarse)
            self._part = self._fine
            return ()
        self._find_clear()
        lowest = self._lowest()
        if self._clear is not None:
            clear = self._clear.copy()
            clear[:lowest] = False
            found = np.flatnonzero(clear.reshape(-1, 10).any(axis=1))
            if len(found):
                return tuple((family.coarse + found).tolist())
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

    def _find_clear(self) -> None:
        """Find out where the next coordinate leaves the atoms room, if it is an orbit's last.

        Only in a text whose orbits have met others: what the network writes of its own is not narrowed.
        """
        self._clear = None
        orbit = self.placed[self._orbit]
        last = len(orbit.values) + 1 == len(self._known_group().wyckoff[orbit.index].free)
        if not (self.full and last and self._refused >= base.UNGUIDED):
            return
        matrices, shifts = self._known_group().orbit_maps[orbit.index]
        known = matrices[:, :, :-1] @ (np.array(orbit.values) / description.STEPS)
        self._clear = self._atoms.clear(
            (matrices[:, :, -1], known + shifts), description.STEPS, orbit.element
        )

    def _fine(self, token: int | None) -> Sequence[int]:
        family, group = vocabulary.families(), self._known_group()
        orbit = self.placed[self._orbit]
        if token is not None:
            orbit.values.append(self._pending + token - family.fine)
            last = len(orbit.values) == len(group.wyckoff[orbit.index].free)
            if not last:
                self._part = self._coarse
            elif not self.full:
                self._next_orbit()
            else:
                self._place(orbit)
            return ()
        if not self.full:
            return token_options.between(family.fine, family.size)
        stays, lowest = self._staying(self._pending), self._lowest() - self._pending
        in_order = stays if lowest <= 0 else tuple(d for d in stays if d >= lowest)
        clear: tuple[int, ...] = ()
        if self._clear is not None:
            here = self._clear[self._pending : self._pending + 10].tolist()
            clear = tuple(d for d in in_order if here[d])
        # Order is a matter of form: where it leaves nothing (behind 0.999), out of order is a crystal still.
        return token_options.shifted(family.fine, clear or in_order or stays or coordinates.DIGITS)

    def _place(self, orbit: _Placed) -> None:
        """Put a complete orbit into the cell, or take it back where it is too close."""
        own = self._images(orbit)
        if self._atoms.meets(own, orbit.element):
            # Where an only coordinate leaves no room, no other value of it will.
            stuck = self._clear is not None and len(orbit.values) == 1 and not self._clear.any()
            if (not stuck and self._restart_orbit(orbit)) or self._restart():
                self._refused += 1
                return
        self._rewrites[0] = self._budget[0]
        self._atoms.add(own, orbit.element)
        self._next_orbit()

    def _full_tens(self) -> frozenset[int]:
        """Tens of an orbit's last coordinate that other orbits have taken all values of."""
        orbit = self.placed[self._orbit]
        if not self.full or len(orbit.values) + 1 < len(self._known_group().wyckoff[orbit.index].free):
            return frozenset()
        before = [o.values for o in self.placed[: self._orbit] if o.index == orbit.index]
        if len(before) < coordinates.CROWD:
            return frozenset()
        return coordinates.full_tens(self._known_group().number, orbit.index, tuple(orbit.values), before)

    def _has_room(self, lowest: int) -> bool:
        """Whether a coordinate of this value or a higher one is left for an orbit."""
        orbit = self.placed[self._orbit]
        if len(orbit.values) + 1 < len(self._known_group().wyckoff[orbit.index].free):
            return True
        tens = range(lowest // 10 * 10, description.STEPS, 10)
        return any(first + d >= lowest for first in tens for d in self._staying(first))

    def _lowest(self) -> int:
        """Smallest next coordinate that keeps equal orbits in order."""
        orbit = self.placed[self._orbit]
        if not self.full or not self._orbit:
            return 0
        before = self.placed[self._orbit - 1]
        same = (before.element, before.index) == (orbit.element, orbit.index)
        done = len(orbit.values)
        return before.values[done] if same and before.values[:done] == orbit.values else 0

    def _staying(self, first: int) -> tuple[int, ...]:
        """Last digits with which an orbit keeps its multiplicity and is on no point of one before it.

        Args:
            first: the next coordinate with a last digit of 0.
        """
        group, orbit = self._known_group(), self.placed[self._orbit]
        values = (*orbit.values, first)
        kept = coordinates.keeping(group.number, orbit.index, values)
        if len(values) < len(group.wyckoff[orbit.index].free):
            return kept
        before = [o.values for o in self.placed[: self._orbit] if o.index == orbit.index]
        return coordinates.apart(group.number, orbit.index, values, kept, before) if before else kept

    def _end(self, token: int | None) -> Sequence[int]:
        if token is not None:
            self._part = self._nothing
        return token_options.alone(vocabulary.families().end)

    def _nothing(self, token: int | None) -> Sequence[int]:  # noqa: ARG002 - has the form of all parts
        return ()

    def _known_group(self) -> SpaceGroup:
        if self.group is None:
            raise AssertionError("a part behind the space group was reached without one")
        return self.group


@dataclass(frozen=True)
class OrbitsRules:
    """Rules of the orbits language, for `decode`."""

    strength: str
    counts: dict[str, int] | None = None
    group: int | None = None
    rewrites: tuple[int, int, int, int] = REWRITES
    context: int | None = None
    bond_rewrites: int = base.ODD_REWRITES
    work: int | None = base.WORK
    wanted: CompositionConstraint | None = None

    def start(self, prompt: Sequence[int]) -> OrbitsGrammarState:
        """The state behind a prompt.

        Raises:
            InputError: the prompt breaks the rules.
        """
        state = OrbitsGrammarState(
            self.strength,
            self.counts,
            self.group,
            rewrites=self.rewrites,
            context=self.context,
            bond_rewrites=self.bond_rewrites,
            work=self.work,
            wanted=self.wanted,
        )
        return base.behind(state, prompt)
