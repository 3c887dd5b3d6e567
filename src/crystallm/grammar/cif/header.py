"""The first part of a CIF text: head line, properties, space group, cell and formulas.

All but composition, group and free cell parameters follows from the rest, and is forced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache

from crystallm.cif import block, tokenizer, writer
from crystallm.crystallography import elements, space_groups
from crystallm.crystallography.space_groups import SpaceGroup
from crystallm.crystallography.wyckoff_assignment import groups_for
from crystallm.grammar.base import BacktrackingState, GrammarOptions
from crystallm.grammar.cif.numbers import PHYSICAL, SENSIBLE, next_characters, parameter_limit, volume_limit
from crystallm.grammar.composition import MAX_ATOMS, MAX_ELEMENTS, CompositionConstraint


@lru_cache(maxsize=4096)
def _ids(text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text))


@cache
def characters() -> dict[str, int]:
    """Return the ids of the characters that numbers consist of and end with."""
    return {c: _ids(c)[0] for c in "0123456789.- \n"}


@cache
def digits() -> tuple[int, ...]:
    """Return the ids of the ten digits."""
    return tuple(characters()[str(d)] for d in range(10))


@cache
def element_ids() -> dict[str, int]:
    """Return the ids of the elements by symbol, by rising electronegativity."""
    return {symbol: _ids(symbol)[0] for symbol in elements.electronegativity_order(elements.symbols())}


@cache
def group_numbers() -> dict[int, int]:
    """Return the numbers of the space groups that have a token, by its id."""
    return {token: space_groups.get(symbol).number for symbol, token in tokenizer.space_groups().items()}


class CifHeaderState(BacktrackingState):
    """State up to the atom loop; `_begin_rows` continues.

    Each step offers a choice with the method that takes it, or forces a text with the step after it.
    """

    def __init__(self, options: GrammarOptions) -> None:
        super().__init__(options, tokenizer.vocabulary())
        self.group: SpaceGroup = space_groups.get(1)
        self._cell: list[float] = []
        self._symbol = ""  # element of the head line or of the row at hand
        self._number = ""  # the number at hand, so far
        self._limit = (0, 0)  # and its bounds
        self._forced: tuple[int, ...] = ()  # forced tokens
        self._n_forced = 0  # and those taken
        self._then: Callable[[], None] = self._head
        self._options: Sequence[int] = ()
        self._take: Callable[[int], None] | None = None
        self._n_choices = 0  # tokens that were a choice
        self._cell_start = 0  # tokens before the cell
        if (counts := self._requested_counts) is not None:
            self.composition = {s: counts[s] for s in elements.electronegativity_order(counts)}
            self._force(writer.head(self.composition.items()) + "\n", self._properties)
        else:
            self._force("data_", self._head)

    def allowed(self) -> Sequence[int]:
        """Return the allowed tokens; none after the end."""
        return self._options

    def advance(self, token: int) -> int:
        """Take a token; see `BacktrackingState.advance`."""
        if token not in self._options:
            raise self._refuse(token, self._options)
        self._n_tokens += 1
        self._n_choices += len(self._options) > 1
        self._n_back = 0
        if self._take is not None:
            self._take(token)
        elif self._n_forced + 1 < len(self._forced):
            self._n_forced += 1
            self._options = self._forced[self._n_forced : self._n_forced + 1]
        else:
            self._then()
        self._n_tokens -= self._n_back
        return self._n_back

    def _offer(self, options: Sequence[int], take: Callable[[int], None]) -> None:
        self._options, self._take = options, take

    def _force(self, text: str, then: Callable[[], None]) -> None:
        self._forced, self._n_forced = _ids(text), 0
        self._options, self._take, self._then = self._forced[:1], None, then

    def _begin_rows(self) -> None:
        """Continue with the first row of the atom loop."""
        raise NotImplementedError

    # --- head line, properties, group ---

    def _head(self) -> None:
        """Offer an element, another digit of the last count, or the end of the line."""
        if self._wanted is not None:
            self._offer(self._constrained_head(self._wanted), self._take_head)
            return
        options: list[int] = []
        ids, n_atoms = element_ids(), sum(self.composition.values())
        if self._symbol:
            room = MAX_ATOMS - n_atoms + self.composition[self._symbol]
            first = 0 if self._number else 1
            options += [digits()[d] for d in range(first, 10) if int(self._number or 0) * 10 + d <= room]
        if self._number or not self._symbol:
            if not self.full:
                options += [i for s, i in ids.items() if s not in self.composition]
            elif len(self.composition) < MAX_ELEMENTS and n_atoms < MAX_ATOMS:
                later = list(ids)[list(ids).index(self._symbol) + 1 :] if self._symbol else list(ids)
                options += [ids[s] for s in later]
        # A text has at least one formula unit: the cell O1, half an O2, has no text.
        if self._number and (not self.full or writer.formula_unit(self.composition)[1] >= 1):
            options.append(characters()["\n"])
        self._offer(options, self._take_head)

    def _constrained_head(self, wanted: CompositionConstraint) -> list[int]:
        """Return the same options under a constraint on the composition."""
        ids = element_ids()
        if not self._symbol:
            return [ids[s] for s in wanted.following(())]
        counts = wanted.counts(self.composition, self._symbol)
        done = len(self._number)
        further = {str(n)[done] for n in counts if str(n).startswith(self._number) and len(str(n)) > done}
        options = [characters()[d] for d in sorted(further)]
        if self._number and int(self._number) in counts:
            if len(self.composition) < MAX_ELEMENTS:
                options += [ids[s] for s in wanted.following(self.composition)]
            if wanted.may_end(self.composition) and writer.formula_unit(self.composition)[1] >= 1:
                options.append(characters()["\n"])
        return options

    def _take_head(self, token: int) -> None:
        text = self._vocabulary[token]
        if text == "\n":
            self._number = ""
            self._properties()
            return
        if text.isdecimal():
            self._number += text
            self.composition[self._symbol] = int(self._number)
        else:
            self._symbol, self._number = text, ""
            self.composition[text] = 0
        self._head()

    def _properties(self) -> None:
        lines = [*writer.properties(self.composition), writer.group_line("")]
        self._force("\n".join(lines), self._group)

    def _group(self) -> None:
        if not self.full:
            options = list(group_numbers())
        elif self._requested_group is not None:
            options = [token for token, number in group_numbers().items() if number == self._requested_group]
        else:
            able = set(groups_for(tuple(sorted(self.composition.values()))))
            options = [token for token, number in group_numbers().items() if number in able]
        self._offer(options, self._take_group)

    def _take_group(self, token: int) -> None:
        self.group = space_groups.get(group_numbers()[token])
        self._force("\n", self._begin_cell)

    # --- cell and formulas ---

    def _offer_number(self, limit: tuple[int, int], then: Callable[[], None]) -> None:
        """Offer the characters of a number within bounds (units of the fourth decimal), then the line end."""
        self._number, self._limit, self._then = "", limit, then
        self._offer_character()

    def _offer_character(self) -> None:
        ids = characters()
        options = next_characters(self._number, *self._limit)
        self._offer([ids[c] for c in options], self._take_character)

    def _take_character(self, token: int) -> None:
        character = self._vocabulary[token]
        if character == "\n":
            self._then()
        else:
            self._number += character
            self._offer_character()

    def _begin_cell(self) -> None:
        self._cell_start = self._n_tokens
        self._parameter()

    def _parameter(self) -> None:
        """Force the tag of the next cell parameter, and its value if the group ties it."""
        done = len(self._cell)
        if done == len(block.CELL):
            self._formulas()
            return
        name, tag = space_groups.PARAMETERS[done], block.CELL[done]
        if self.full and name not in self.group.free_cell:
            known = dict(zip(space_groups.PARAMETERS, self._cell, strict=False))
            value = self.group.complete_cell(known)[done]
            self._cell.append(value)
            self._force(f"{tag} {value:.4f}\n", self._parameter)
        else:
            self._force(f"{tag} ", self._parameter_value)

    def _parameter_value(self) -> None:
        name = space_groups.PARAMETERS[len(self._cell)]
        group = self.group if self.full else space_groups.get(1)
        known = dict(zip(space_groups.PARAMETERS, self._cell, strict=False))
        free = {p: known[p] for p in group.free_cell if p in known}
        n_atoms = sum(self.composition.values()) if self.full else 1
        limit = parameter_limit(group, n_atoms, free, name, PHYSICAL if self.full else SENSIBLE)
        self._offer_number(limit, self._take_parameter)

    def _take_parameter(self) -> None:
        self._cell.append(float(self._number))
        self._parameter()

    def _formulas(self) -> None:
        lines = [
            f"{block.NUMBER} {self.group.number}",
            f"{block.STRUCTURAL} {writer.formula_unit(self.composition)[0]}",
            f"{block.SUM} {writer.sum_formula(self.composition)}",
            f"{block.VOLUME} ",
        ]
        self._force("\n".join(lines), self._volume)

    def _volume(self) -> None:
        group = self.group if self.full else space_groups.get(1)
        self._offer_number(volume_limit(group, self._cell), self._begin_rows)
