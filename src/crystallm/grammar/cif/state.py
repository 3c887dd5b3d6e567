"""Which tokens may come next in a text of the published language, and which must.

Most of a text follows from the rest and is offered as the only choice: the loop of properties from the
composition; tied cell parameters, number, formulas, volume and Z from composition, group and cell; labels and
occupancies. Free are the composition (if none was asked), the group (likewise), the free cell parameters, and
in each row of the atom loop the multiplicity and the coordinates, digit by digit.

    full      the composition asked for, filled exactly; elements and rows in the order of the language; a
              cell with a volume and tied parameters; each atom on a Wyckoff position of the multiplicity
              written, none on top of another
    syntax    the form: every text can be read, whatever its cell and its atoms

Numbers are the business of `grammar_cif_numbers`, rows of `grammar_cif_filling`, coordinates of
`grammar_cif_sites`. Refuses to know networks, probabilities and structures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from crystallm.cif import block, tokenizer, writer
from crystallm.crystallography import cells, elements, space_groups
from crystallm.crystallography.wyckoff_assignment import groups_for
from crystallm.errors import InputError
from crystallm.geometry import contacts
from crystallm.grammar.base import BOND_REWRITES, CELL_REWRITES, REWRITES, behind
from crystallm.grammar.cif.numbers import PHYSICAL, SENSIBLE, next_characters, parameter_limit, volume_limit
from crystallm.grammar.cif.rows import RowFilling, multiplicities
from crystallm.grammar.cif.wyckoff_grid import GRID
from crystallm.grammar.composition import MAX_ATOMS, MAX_ELEMENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from crystallm.crystallography.space_groups import SpaceGroup
    from crystallm.grammar.cif.coordinates import Placement
    from crystallm.grammar.composition import CompositionConstraint


WORK = 400
"""Tokens taken back in a text, in all: about as many as a text has."""


@lru_cache(maxsize=4096)
def _ids(text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text))


@cache
def _characters() -> dict[str, int]:
    """Ids of the characters that numbers are made of and end with."""
    return {c: _ids(c)[0] for c in "0123456789.- \n"}


@cache
def _digits() -> tuple[int, ...]:
    return tuple(_characters()[str(d)] for d in range(10))


@cache
def _element_ids() -> dict[str, int]:
    """Ids of the elements by symbol, by rising electronegativity."""
    return {symbol: _ids(symbol)[0] for symbol in elements.electronegativity_order(elements.symbols())}


@cache
def _groups() -> dict[int, int]:
    """Numbers of the space groups that have a token, by its id."""
    return {token: space_groups.get(symbol).number for symbol, token in tokenizer.space_groups().items()}


def _sum(counts: Mapping[str, int]) -> str:
    """The sum formula as the texts print it, `'Na4 Cl4'`."""
    written = " ".join(f"{s}{counts[s]}" for s in elements.electronegativity_order(counts))
    return f"'{written}'" if len(counts) > 1 else written


class CifGrammarState:
    """Where a text of the published language stands, and what may follow.

    Args:
        strength: `full` or `syntax`.
        counts: the composition asked for, if one was.
        group: the space group asked for, if one was.
        rewrites: how often a row, where atoms stand too close, and the cell with all rows, may be taken back.
        bond_rewrites: how often a complete crystal may be taken back for its bonds alone.
        work: tokens that may be taken back, in all.
        wanted: what is asked of the composition where it is not given.
    """

    def __init__(
        self,
        strength: str,
        counts: Mapping[str, int] | None = None,
        group: int | None = None,
        rewrites: tuple[int, int] = (REWRITES, CELL_REWRITES),
        bond_rewrites: int = BOND_REWRITES,
        *,
        work: int = WORK,
        wanted: CompositionConstraint | None = None,
    ) -> None:
        self._full = strength == "full"
        self._wanted = wanted if self._full else None
        self._asked_group = group
        self.composition: dict[str, int] = {}
        self.group: SpaceGroup = space_groups.get(1)
        self._cell: list[float] = []
        self._n_rows = 0
        self._symbol = ""  # element of the head line or the row being written
        self._written = ""  # the number being written, so far
        self._limit = (0, 0)  # and between what it must lie
        self._filling: RowFilling | None = None  # the rows, in full strength
        self._placement: Placement | None = None  # the coordinates of the row being written, likewise
        self._mask: npt.NDArray[np.bool_] | None = None  # what the next digits may be
        self._size = 0  # multiplicity of the row being written
        self._n_coordinates = 0  # of the row being written
        self._forced: tuple[int, ...] = ()  # what must be written
        self._n_forced = 0  # and how much of it is
        self._then: Callable[[], None] = self._head
        self._options: Sequence[int] = ()
        self._take: Callable[[int], None] | None = None
        self._n_tokens = self._n_choices = 0  # written, and those of them that were a choice
        self._floor = 0  # tokens that may not be taken back: the prompt
        self._cell_start = self._row_start = self._row_choices = 0  # these numbers where cell and row begin
        self._back = 0  # tokens that the last one takes back
        self._most_rewrites = rewrites
        self._rewrites = list(rewrites)  # left
        self._bond_rewrites = bond_rewrites  # likewise
        self._work = work  # tokens that may still be taken back
        self._atoms = contacts.PlacedAtoms(np.zeros((3, 3)))  # of the rows that are written
        self._own = np.zeros((0, 3))  # atoms of the row being written, fractions
        if self._full and counts is not None:
            self.composition = {s: counts[s] for s in elements.electronegativity_order(counts)}
            self._force(writer.head(self.composition.items()) + "\n", self._properties)
        else:
            self._force("data_", self._head)

    def allowed(self) -> Sequence[int]:
        """Tokens that may come next; empty after the end."""
        return self._options

    def advance(self, token: int) -> int:
        """Take a token.

        Returns:
            How many tokens, this one among them, were taken back since they put atoms too close.

        Raises:
            InputError: it may not come here.
        """
        if token not in self._options:
            raise InputError(self._refusal(token))
        self._n_tokens += 1
        self._n_choices += len(self._options) > 1
        self._back = 0
        if self._take is not None:
            self._take(token)
        elif self._n_forced + 1 < len(self._forced):
            self._n_forced += 1
            self._options = self._forced[self._n_forced : self._n_forced + 1]
        else:
            self._then()
        self._n_tokens -= self._back
        return self._back

    def settle(self) -> None:
        """Hold on to all that has been taken so far."""
        self._floor = self._n_tokens

    def _refusal(self, token: int) -> str:
        vocabulary = tokenizer.vocabulary()
        name = vocabulary[token] if 0 <= token < len(vocabulary) else token
        here = " ".join(repr(vocabulary[i]) for i in self._options[:5])
        return (
            f"{name!r} may not come here; {here or 'nothing'}{' ...' if len(self._options) > 5 else ''} may"
        )

    # Each step offers a choice with the function that takes it, or forces a text with what follows on it.

    def _offer(self, options: Sequence[int], take: Callable[[int], None]) -> None:
        self._options, self._take = options, take

    def _force(self, text: str, then: Callable[[], None]) -> None:
        self._forced, self._n_forced = _ids(text), 0
        self._options, self._take, self._then = self._forced[:1], None, then

    # --- head line, properties, group ---

    def _head(self) -> None:
        """An element of the composition, another digit of the last count, or the end of the line."""
        if self._wanted is not None:
            self._offer(self._wanted_head(self._wanted), self._take_head)
            return
        options: list[int] = []
        ids, n_atoms = _element_ids(), sum(self.composition.values())
        if self._symbol:
            room = MAX_ATOMS - n_atoms + self.composition[self._symbol]
            first = 0 if self._written else 1
            options += [_digits()[d] for d in range(first, 10) if int(self._written or 0) * 10 + d <= room]
        if self._written or not self._symbol:
            if not self._full:
                options += [i for s, i in ids.items() if s not in self.composition]
            elif len(self.composition) < MAX_ELEMENTS and n_atoms < MAX_ATOMS:
                later = list(ids)[list(ids).index(self._symbol) + 1 :] if self._symbol else list(ids)
                options += [ids[s] for s in later]
        # A text has at least one formula unit: none can say the cell O1, half an O2.
        if self._written and (not self._full or writer.formula_unit(self.composition)[1] >= 1):
            options.append(_characters()["\n"])
        self._offer(options, self._take_head)

    def _wanted_head(self, wanted: CompositionConstraint) -> list[int]:
        """The same where something is asked of the composition."""
        ids = _element_ids()
        if not self._symbol:
            return [ids[s] for s in wanted.following(())]
        able = wanted.counts(self.composition, self._symbol)
        done = len(self._written)
        further = {str(n)[done] for n in able if str(n).startswith(self._written) and len(str(n)) > done}
        options = [_characters()[d] for d in sorted(further)]
        if self._written and int(self._written) in able:
            if len(self.composition) < MAX_ELEMENTS:
                options += [ids[s] for s in wanted.following(self.composition)]
            if wanted.may_end(self.composition) and writer.formula_unit(self.composition)[1] >= 1:
                options.append(_characters()["\n"])
        return options

    def _take_head(self, token: int) -> None:
        text = tokenizer.vocabulary()[token]
        if text == "\n":
            self._written = ""
            self._properties()
            return
        if text.isdecimal():
            self._written += text
            self.composition[self._symbol] = int(self._written)
        else:
            self._symbol, self._written = text, ""
            self.composition[text] = 0
        self._head()

    def _properties(self) -> None:
        lines = [*writer.properties(self.composition), writer.group_line("")]
        self._force("\n".join(lines), self._group)

    def _group(self) -> None:
        if not self._full:
            options = list(_groups())
        elif self._asked_group is not None:
            options = [token for token, number in _groups().items() if number == self._asked_group]
        else:
            able = set(groups_for(tuple(sorted(self.composition.values()))))
            options = [token for token, number in _groups().items() if number in able]
        self._offer(options, self._take_group)

    def _take_group(self, token: int) -> None:
        self.group = space_groups.get(_groups()[token])
        self._force("\n", self._begin_cell)

    # --- numbers ---

    def _number(self, limit: tuple[int, int], then: Callable[[], None]) -> None:
        """Characters of a number within a limit (units of the fourth decimal), then the end of its line."""
        self._written, self._limit, self._then = "", limit, then
        self._next_character()

    def _next_character(self) -> None:
        ids = _characters()
        found = next_characters(self._written, *self._limit)
        self._offer([ids[c] for c in found], self._take_character)

    def _take_character(self, token: int) -> None:
        character = tokenizer.vocabulary()[token]
        if character == "\n":
            self._then()
        else:
            self._written += character
            self._next_character()

    def _begin_cell(self) -> None:
        self._cell_start = self._n_tokens
        self._parameter()

    def _parameter(self) -> None:
        """The next cell parameter."""
        done = len(self._cell)
        if done == len(block.CELL):
            self._formulas()
            return
        name, tag = space_groups.PARAMETERS[done], block.CELL[done]
        if self._full and name not in self.group.free_cell:
            known = dict(zip(space_groups.PARAMETERS, self._cell, strict=False))
            value = self.group.complete_cell(known)[done]
            self._cell.append(value)
            self._force(f"{tag} {value:.4f}\n", self._parameter)
        else:
            self._force(f"{tag} ", self._parameter_value)

    def _parameter_value(self) -> None:
        name = space_groups.PARAMETERS[len(self._cell)]
        group = self.group if self._full else space_groups.get(1)
        known = dict(zip(space_groups.PARAMETERS, self._cell, strict=False))
        written = {p: known[p] for p in group.free_cell if p in known}
        n_atoms = sum(self.composition.values()) if self._full else 1
        limit = parameter_limit(group, n_atoms, written, name, PHYSICAL if self._full else SENSIBLE)
        self._number(limit, self._take_parameter)

    def _take_parameter(self) -> None:
        self._cell.append(float(self._written))
        self._parameter()

    def _formulas(self) -> None:
        lines = [
            f"{block.NUMBER} {self.group.number}",
            f"{block.STRUCTURAL} {writer.formula_unit(self.composition)[0]}",
            f"{block.SUM} {_sum(self.composition)}",
            f"{block.VOLUME} ",
        ]
        self._force("\n".join(lines), self._volume)

    def _volume(self) -> None:
        group = self.group if self._full else space_groups.get(1)
        self._number(volume_limit(group, self._cell), self._loops)

    def _loops(self) -> None:
        lines = [
            f"{block.Z} {int(writer.formula_unit(self.composition)[1])}",
            "loop_",
            *block.OPERATOR_LOOP,
            "1 'x, y, z'",
            "loop_",
            *block.ATOM_LOOP,
        ]
        if self._full:
            self._filling = RowFilling(self.group.number, self.composition)
            self._atoms = contacts.PlacedAtoms(cells.lattice(self._cell))
        self._force("\n".join(lines) + "\n", self._row)

    # --- rows of atoms ---

    def _row(self) -> None:
        """The element of a row, or the end."""
        if self._filling is None:
            options = [_element_ids()[s] for s in self.composition]
            if self._n_rows:
                options.append(_characters()["\n"])
        elif self._filling.is_complete:
            options = [_characters()["\n"]]
        else:
            options = [_element_ids()[s] for s in self._filling.rows()]
        self._offer(options, self._take_element)

    def _take_element(self, token: int) -> None:
        symbol = tokenizer.vocabulary()[token]
        if symbol == "\n":
            self._offer((), self._take_element)
            return
        self._symbol = symbol
        self._force(f" {symbol}{self._n_rows} ", self._begin_row)

    def _begin_row(self) -> None:
        self._row_start, self._row_choices = self._n_tokens, self._n_choices
        self._written = ""
        self._multiplicity()

    def _multiplicity(self) -> None:
        """A digit of the multiplicity, or the blank behind it."""
        able = (
            multiplicities(self.group.number) if self._filling is None else self._filling.rows()[self._symbol]
        )
        done = len(self._written)
        fitting = [str(m) for m in able if str(m).startswith(self._written)]
        found = sorted({text[done] if len(text) > done else " " for text in fitting})
        self._offer([_characters()[c] for c in found], self._take_multiplicity)

    def _take_multiplicity(self, token: int) -> None:
        character = tokenizer.vocabulary()[token]
        if character != " ":
            self._written += character
            self._multiplicity()
            return
        if self._filling is not None:
            self._placement = self._filling.rows()[self._symbol][int(self._written)]
        self._size = int(self._written)
        self._n_coordinates = 0
        self._coordinate()

    def _coordinate(self) -> None:
        """A coordinate's sign or the 0 that it begins with."""
        ids = _characters()
        self._written = ""
        self._mask = None
        if self._placement is None:
            self._offer([ids["0"], ids["1"], ids["-"]], self._take_first)
            return
        mask, is_negative = self._placement.mask()
        self._mask = mask.reshape(10, 10, 10, 10)
        options = [ids["0"]] if mask.any() else []
        self._offer([*options, ids["-"]] if is_negative else options, self._take_first)

    def _take_first(self, token: int) -> None:
        ids = _characters()
        if token == ids["1"]:
            self._force(".0000", self._end_coordinate)
        elif token == ids["-"] and self._mask is not None:
            self._written = "-"
            self._force("0.0000", self._end_coordinate)
        else:
            self._force("0." if token == ids["-"] else ".", self._next_digit)

    def _next_digit(self) -> None:
        if len(self._written) == 4:
            self._end_coordinate()
            return
        if self._mask is None:
            self._offer(_digits(), self._take_digit)
            return
        able = np.asarray(self._mask.reshape(10, -1).any(axis=1)).tolist()
        self._offer([i for i, is_able in zip(_digits(), able, strict=True) if is_able], self._take_digit)

    def _take_digit(self, token: int) -> None:
        digit = _digits().index(token)
        self._written += str(digit)
        if self._mask is not None:
            self._mask = self._mask[digit]
        self._next_digit()

    def _end_coordinate(self) -> None:
        self._n_coordinates += 1
        if self._placement is not None:
            self._placement.take(-1 if self._written == "-" else int(self._written))
        if self._n_coordinates < 3:
            self._force(" ", self._coordinate)
        elif not (self._meets() and (self._restart_row() or self._restart_cell())):
            self._force(" 1.0\n", self._end_row)

    def _end_row(self) -> None:
        self._n_rows += 1
        self._rewrites[0] = self._most_rewrites[0]
        if self._filling is not None and self._placement is not None:
            self._atoms.add(self._own, self._symbol)
            self._filling.take(self._symbol, self._size, self._placement)
            if self._filling.is_complete and self._rewrites[1] and self._fails() and self._restart_cell():
                return
        self._row()

    # --- what stands too close, or looks odd at the end, is written anew, a bounded number of times ---

    def _meets(self) -> bool:
        """Whether the row's atoms stand too close to each other or to those before."""
        if self._filling is None or self._placement is None or not any(self._most_rewrites):
            return False
        self._own = self._filling.atoms(self._placement) / GRID
        return self._atoms.meets(self._own, self._symbol)

    def _fails(self) -> bool:
        """Whether the crystal, now that it is complete, has another group than was written, or odd bonds."""
        fault = self._atoms.fault(self.group.number, bonds_too=self._bond_rewrites > 0)
        self._bond_rewrites -= fault == "bonds"
        return bool(fault)

    def _take_back(self, start: int) -> bool:
        """Take back all tokens from the one with this number on, if that is not too much work."""
        n_tokens = self._n_tokens - start
        if start < self._floor or n_tokens > self._work:
            return False
        self._work -= n_tokens
        self._back = n_tokens
        return True

    def _restart_row(self) -> bool:
        """Take back multiplicity and coordinates of a row, if it had a choice and may still be rewritten."""
        if not self._rewrites[0] or self._n_choices == self._row_choices:
            return False
        if not self._take_back(self._row_start):
            return False
        self._rewrites[0] -= 1
        self._n_choices = self._row_choices
        if self._filling is not None:
            self._filling.renew()
        self._written = ""
        self._multiplicity()
        return True

    def _restart_cell(self) -> bool:
        """Take back cell and rows, if they may still be rewritten."""
        if not self._rewrites[1] or not self._take_back(self._cell_start):
            return False
        self._rewrites = [self._most_rewrites[0], self._rewrites[1] - 1]
        self._cell, self._n_rows = [], 0
        self._parameter()
        return True


@dataclass(frozen=True)
class CifRules:
    """Rules of the published language, for `decode`.

    Attributes:
        strength: `full` or `syntax`.
        counts: the composition asked for, if one was.
        group: number of the space group asked for, if one was.
        rewrites: how often a row, and cell and rows together, may be taken back where atoms stand too close.
        bond_rewrites: how often a complete crystal may be taken back for its bonds alone.
        wanted: what is asked of the composition where it is not given.

    Raises:
        InputError: a composition that no text can say, or a space group without a token.
    """

    strength: str
    counts: Mapping[str, int] | None = None
    group: int | None = None
    rewrites: tuple[int, int] = (REWRITES, CELL_REWRITES)
    bond_rewrites: int = BOND_REWRITES
    wanted: CompositionConstraint | None = None

    def __post_init__(self) -> None:
        if self.counts is not None and writer.formula_unit(dict(self.counts))[1] < 1:
            formula, units = writer.formula_unit(dict(self.counts))
            raise InputError(
                f"the cell holds {units} formula units of {formula}: no text has less than one; ask for more"
            )
        if self.group is not None and self.group not in _groups().values():
            raise InputError(
                f"the language 'cif' has no token for the space group {space_groups.get(self.group).symbol}: "
                "the published vocabulary lacks P4_222, P6 and P432; the language 'orbits' has all 230"
            )

    def start(self, prompt: Sequence[int]) -> CifGrammarState:
        """The state behind a prompt.

        Raises:
            InputError: the prompt breaks the rules.
        """
        state = CifGrammarState(
            self.strength, self.counts, self.group, self.rewrites, self.bond_rewrites, wanted=self.wanted
        )
        return behind(state, prompt)
