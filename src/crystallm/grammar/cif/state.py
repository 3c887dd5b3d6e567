"""The grammar of CIF texts: allowed tokens from the head line to the last row.

Most of a text follows from the rest and is forced: the loop of properties from the composition; tied cell
parameters, number, formulas, volume and Z from composition, group and cell; labels and occupancies. Free are
the composition and the group (unless requested), the free cell parameters, and in each row of the atom loop
the multiplicity and the coordinates, digit by digit.

    full      the composition requested, filled exactly; elements and rows in the order of the language; a
              cell with a volume and tied parameters; each atom on a Wyckoff position of the multiplicity
              printed, none on top of another
    syntax    the form: every text can be read, whatever its cell and its atoms

Does not depend on networks, probabilities or structures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crystallm.cif import block, writer
from crystallm.cif.language import missing_group
from crystallm.crystallography import cells, space_groups
from crystallm.errors import InputError
from crystallm.geometry import contacts
from crystallm.grammar.base import CELL_RETRIES, CRYSTAL_BOND_RETRIES, ORBIT_RETRIES, GrammarOptions
from crystallm.grammar.cif.header import CifHeaderState, characters, digits, element_ids, group_numbers
from crystallm.grammar.cif.rows import RowFilling, multiplicities
from crystallm.grammar.cif.wyckoff_grid import GRID

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from crystallm.grammar.cif.coordinates import Placement

RETRIES = (ORBIT_RETRIES, CELL_RETRIES)
"""Of a row, and of cell and rows together."""

_ROW, _CELL = 0, 1


class CifGrammarState(CifHeaderState):
    """State of a CIF text: the atom loop, after what `CifHeaderState` holds."""

    def __init__(self, options: GrammarOptions) -> None:
        super().__init__(options)
        self._n_rows = 0
        self._filling: RowFilling | None = None  # the rows, in full strength
        self._placement: Placement | None = None  # the coordinates of the row at hand, likewise
        self._mask: npt.NDArray[np.bool_] | None = None  # allowed next digits of the coordinate
        self._size = 0  # multiplicity of the row at hand
        self._n_coordinates = 0  # of the row at hand
        self._row_start = self._row_choices = 0  # tokens and choices before the row
        self._row_atoms = np.zeros((0, 3))  # of the row at hand, fractions

    def _begin_rows(self) -> None:
        lines = [
            f"{block.Z} {int(writer.formula_unit(self.composition)[1])}",
            "loop_",
            *block.OPERATOR_LOOP,
            "1 'x, y, z'",
            "loop_",
            *block.ATOM_LOOP,
        ]
        if self.full:
            self._filling = RowFilling(self.group.number, self.composition)
            self._atoms = contacts.PlacedAtoms(cells.lattice(self._cell))
        self._force("\n".join(lines) + "\n", self._row)

    # --- rows of atoms ---

    def _row(self) -> None:
        """Offer the element of a row, or the end."""
        if self._filling is None:
            options = [element_ids()[s] for s in self.composition]
            if self._n_rows:
                options.append(characters()["\n"])
        elif self._filling.is_complete:
            options = [characters()["\n"]]
        else:
            options = [element_ids()[s] for s in self._filling.rows()]
        self._offer(options, self._take_element)

    def _take_element(self, token: int) -> None:
        symbol = self._vocabulary[token]
        if symbol == "\n":
            self._offer((), self._take_element)
            return
        self._symbol = symbol
        self._force(f" {symbol}{self._n_rows} ", self._begin_row)

    def _begin_row(self) -> None:
        self._row_start, self._row_choices = self._n_tokens, self._n_choices
        self._number = ""
        self._multiplicity()

    def _multiplicity(self) -> None:
        """Offer a digit of the multiplicity, or the blank after it."""
        able = (
            multiplicities(self.group.number) if self._filling is None else self._filling.rows()[self._symbol]
        )
        done = len(self._number)
        fitting = [str(m) for m in able if str(m).startswith(self._number)]
        options = sorted({text[done] if len(text) > done else " " for text in fitting})
        self._offer([characters()[c] for c in options], self._take_multiplicity)

    def _take_multiplicity(self, token: int) -> None:
        character = self._vocabulary[token]
        if character != " ":
            self._number += character
            self._multiplicity()
            return
        if self._filling is not None:
            self._placement = self._filling.rows()[self._symbol][int(self._number)]
        self._size = int(self._number)
        self._n_coordinates = 0
        self._coordinate()

    def _coordinate(self) -> None:
        """Offer the sign of a coordinate or its first 0."""
        ids = characters()
        self._number = ""
        self._mask = None
        if self._placement is None:
            self._offer([ids["0"], ids["1"], ids["-"]], self._take_first)
            return
        mask, is_negative = self._placement.mask()
        self._mask = mask.reshape(10, 10, 10, 10)
        options = [ids["0"]] if mask.any() else []
        self._offer([*options, ids["-"]] if is_negative else options, self._take_first)

    def _take_first(self, token: int) -> None:
        ids = characters()
        if token == ids["1"]:
            self._force(".0000", self._end_coordinate)
        elif token == ids["-"] and self._mask is not None:
            self._number = "-"
            self._force("0.0000", self._end_coordinate)
        else:
            self._force("0." if token == ids["-"] else ".", self._next_digit)

    def _next_digit(self) -> None:
        if len(self._number) == 4:
            self._end_coordinate()
            return
        if self._mask is None:
            self._offer(digits(), self._take_digit)
            return
        able = np.asarray(self._mask.reshape(10, -1).any(axis=1)).tolist()
        self._offer([i for i, is_able in zip(digits(), able, strict=True) if is_able], self._take_digit)

    def _take_digit(self, token: int) -> None:
        digit = digits().index(token)
        self._number += str(digit)
        if self._mask is not None:
            self._mask = self._mask[digit]
        self._next_digit()

    def _end_coordinate(self) -> None:
        self._n_coordinates += 1
        if self._placement is not None:
            self._placement.take(-1 if self._number == "-" else int(self._number))
        if self._n_coordinates < 3:
            self._force(" ", self._coordinate)
        elif not (self._meets() and (self._restart_row() or self._restart_cell())):
            self._force(" 1.0\n", self._end_row)

    def _end_row(self) -> None:
        self._n_rows += 1
        self._retries[_ROW] = self._retry_budget[_ROW]
        if self._filling is not None and self._placement is not None:
            self._atoms.add(self._row_atoms, self._symbol)
            self._filling.take(self._symbol, self._size, self._placement)
            if (
                self._filling.is_complete
                and self._retries[_CELL]
                and self._fault(self.group.number)
                and self._restart_cell()
            ):
                return
        self._row()

    # --- backtracking: rows with atoms too close, then the cell; crystals with a fault at the end ---

    def _meets(self) -> bool:
        """Return whether the atoms of the row are too close to each other or to those before."""
        if self._filling is None or self._placement is None or not any(self._retry_budget):
            return False
        self._row_atoms = self._filling.atoms(self._placement) / GRID
        return self._atoms.meets(self._row_atoms, self._symbol)

    def _restart_row(self) -> bool:
        """Backtrack to the multiplicity of a row that had a choice."""
        if self._n_choices == self._row_choices or not self._retry(_ROW, self._n_tokens - self._row_start):
            return False
        self._n_choices = self._row_choices
        if self._filling is not None:
            self._filling.renew()
        self._number = ""
        self._multiplicity()
        return True

    def _restart_cell(self) -> bool:
        """Backtrack to the cell."""
        if not self._retry(_CELL, self._n_tokens - self._cell_start):
            return False
        self._retries[_ROW] = self._retry_budget[_ROW]
        self._cell, self._n_rows = [], 0
        self._parameter()
        return True


@dataclass(frozen=True)
class CifGrammar(GrammarOptions):
    """The grammar of CIF texts for one request.

    Raises:
        InputError: a composition without a text, or a space group without a token.
    """

    retries: tuple[int, ...] = RETRIES
    bond_retries: int = CRYSTAL_BOND_RETRIES

    def __post_init__(self) -> None:
        if self.counts is not None and writer.formula_unit(dict(self.counts))[1] < 1:
            formula, units = writer.formula_unit(dict(self.counts))
            raise InputError(
                f"the cell holds {units} formula units of {formula}: a text has at least one; request more"
            )
        if self.group is not None and self.group not in group_numbers().values():
            raise missing_group(space_groups.get(self.group).symbol)

    def start(self, prompt: Sequence[int]) -> CifGrammarState:
        """Return the state after a prompt.

        Raises:
            InputError: the prompt breaks the grammar.
        """
        return CifGrammarState(self).read(prompt)
