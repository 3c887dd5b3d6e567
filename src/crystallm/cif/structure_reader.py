"""The crystal of a CIF, read as the judge of the paper reads it, and as collections mean it.

The operators act on the rows, and images within 1e-4 in fractional coordinates are one atom (pymatgen's
`CifParser`, or the same by `unfold`). The symmetry loop of a standard text, the identity alone, stands for
the printed group. Repairs nothing: `cif.to_structure` is the reader that puts atoms where they belong.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from crystallm.cif.block import ANGLES, LENGTHS, POSITION, Block, number, read, row_symbol
from crystallm.cif.block import read as read_block
from crystallm.crystallography.cells import cell_vectors
from crystallm.errors import CrystallmError, TextError, quiet_libraries
from crystallm.geometry import bonds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pymatgen.core import Structure

    from crystallm.crystallography.space_groups import Floats


MAX_IMAGES = 10_000
"""Atom rows times operators beyond which a text is not judged; real crystals stay below 3,000."""

GROUP = ("_symmetry_space_group_name_H-M", "_space_group_name_H-M_alt")

OPERATORS = ("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz")


def printed_group(block: Block) -> str | None:
    """The symbol that is printed, without blanks; None if there is none."""
    symbol = block.first(GROUP)
    return None if symbol is None else "".join(symbol.split())


@cache
def group_operators(symbol: str) -> tuple[str, ...]:
    """The operators of a group as CIF writes them.

    Raises:
        InputError: no such group.
    """
    from crystallm.crystallography import space_groups

    group = space_groups.get(symbol)
    return tuple(
        _as_xyz(rotation, translation)
        for rotation, translation in zip(group.rotations, group.translations, strict=True)
    )


@lru_cache(maxsize=1024)
def _matrices(operators: tuple[str, ...]) -> Floats | None:
    """[n_ops, 3, 4] operators as pymatgen reads them, None where it does not."""
    import numpy as np
    from pymatgen.core import SymmOp

    try:
        return np.array([SymmOp.from_xyz_str(xyz).affine_matrix[:3] for xyz in operators])
    except (ValueError, ZeroDivisionError, IndexError):
        return None


def _as_xyz(rotation: Iterable[Iterable[int]], translation: Iterable[float]) -> str:
    """An operator as CIF writes it: `-y, x-y, z+1/3` (translations are multiples of 1/24)."""
    from fractions import Fraction

    parts = []
    for row, shift in zip(rotation, translation, strict=True):
        term = "".join(f"{'+' if k > 0 else '-'}{axis}" for k, axis in zip(row, "xyz", strict=True) if k)
        fraction = Fraction(round(float(shift) * 24) % 24, 24)
        parts.append(term.removeprefix("+") + (f"+{fraction}" if fraction else ""))
    return ", ".join(parts)


def _operators(block: Block) -> tuple[str, ...]:
    """The operators that make the crystal of the rows.

    The loop of a standard text, `1 'x, y, z'` alone, stands for the printed group, and so does no loop at
    all; any other loop is taken at its word.

    Raises:
        CrystallmError: the group has to be looked up and there is none of its name.
    """
    name = next((name for name in OPERATORS if any(name in columns for columns, _ in block.loops)), None)
    if name is not None:
        rows = block.rows(name)
        identity = len(rows) == 1 and len(rows[0]) == 2 and _squeezed(rows[0][name]) == "x,y,z"
        if rows and not identity:
            return tuple(row[name] for row in rows)
    symbol = printed_group(block)
    if symbol is None:
        raise CrystallmError("the text has no space group")
    return group_operators(symbol)


def _squeezed(operator: str) -> str:
    return "".join(operator.split()).lower()


@dataclass(frozen=True, slots=True)
class Cell:
    """A crystal as the checks want it.

    Attributes:
        vectors: [3, 3] of the cell (rows), Å.
        coords: [n_atoms, 3] fractions.
        kinds: [n_atoms] numbers that tell atoms of different elements (or mixtures) apart.
        symbols: an element for each atom; "" for a site that is shared or partly filled.
        operators: [n_ops, 3, 4] that made the atoms from the rows.
        structure: the same, where pymatgen had to be asked.
    """

    vectors: Floats
    coords: Floats
    kinds: list[int]
    symbols: list[str]
    operators: Floats
    structure: Structure | None = None

    def to_structure(self) -> Structure:
        """The same for pymatgen."""
        if self.structure is not None:
            return self.structure
        from pymatgen.core import Structure

        return Structure(self.vectors, self.symbols, self.coords)


def cell(block: Block) -> Cell:
    """The crystal: the operators on the rows, images within 1e-4 merged.

    Raises:
        CrystallmError: something is missing, or it is no crystal, or too large a one.
    """
    parameters = {}
    for name in LENGTHS + ANGLES:
        if name not in block.tags:
            raise CrystallmError(f"the text has no {name}")
        parameters[name] = number(block.tags[name])
    operators, rows = _operators(block), block.atoms()
    if len(rows) * len(operators) > MAX_IMAGES:
        raise CrystallmError(
            f"{len(rows)} atom rows times {len(operators)} operators are more than the {MAX_IMAGES} images "
            "that are judged"
        )
    sites = []
    for row in rows:
        symbol = row_symbol(row)
        missing = [name for name in POSITION if name not in row]
        if missing:
            raise CrystallmError(f"the atom rows have no {missing[0]}")
        position = [number(row[name]) for name in POSITION]
        sites.append((symbol, position, number(row.get("_atom_site_occupancy", "1"))))
    cell = at_once(list(parameters.values()), operators, sites) or asked(parameters, operators, sites)
    if len(cell.symbols) > bonds.MAX_ATOMS:
        raise CrystallmError(
            f"{len(cell.symbols)} atoms in the cell are more than the {bonds.MAX_ATOMS} judged"
        )
    return cell


def at_once(
    parameters: Sequence[float], operators: tuple[str, ...], sites: Sequence[tuple[str, list[float], float]]
) -> Cell | None:
    """The crystal without pymatgen's parser; None where that has to be asked (see `unfold`)."""
    import numpy as np

    from crystallm.geometry import symmetry_expansion

    matrices, vectors = _matrices(operators), cell_vectors(parameters)
    if matrices is None or vectors is None or any(occupancy != 1 for _, _, occupancy in sites):
        return None
    symbols = [symbol for symbol, _, _ in sites]
    found = symmetry_expansion.atoms(symbols, np.array([position for _, position, _ in sites]), matrices)
    if found is None:
        return None
    coords, of_atoms = found
    kinds = {symbol: number for number, symbol in enumerate(dict.fromkeys(of_atoms))}
    return Cell(vectors, coords, [kinds[symbol] for symbol in of_atoms], of_atoms, matrices)


def asked(
    parameters: Mapping[str, float], operators: Sequence[str], sites: Sequence[tuple[str, list[float], float]]
) -> Cell:
    """What pymatgen's CifParser makes of cell, operators and rows.

    Raises:
        CrystallmError: it refuses them.
    """
    import numpy as np
    from pymatgen.io.cif import CifParser

    lines = ["data_crystal", *(f"{name} {value!r}" for name, value in parameters.items())]
    lines += ["loop_", "_symmetry_equiv_pos_as_xyz", *(f"'{xyz}'" for xyz in operators)]
    columns = ("_atom_site_type_symbol", "_atom_site_label", *POSITION, "_atom_site_occupancy")
    lines += ["loop_", *columns]
    for i, (symbol, position, occupancy) in enumerate(sites):
        lines.append(" ".join((symbol, f"{symbol}{i}", *map(repr, position), repr(occupancy))))
    try:
        parser = CifParser.from_str("\n".join(lines))
        structure: Structure = parser.parse_structures(primitive=False, on_error="raise")[0]
    except Exception as error:  # noqa: BLE001 - of many types, on texts of any kind; the reason carries it
        why = (str(error) or type(error).__name__).splitlines()[-1][:120]  # the first line names a "section"
        why = re.sub(
            r"Occupancy ([\d.]+) exceeded tolerance\.?", r"atoms share a point, occupied \1 times", why
        )
        raise CrystallmError(f"the crystal can't be built: {why}") from None
    kinds = list(dict.fromkeys(site.species for site in structure))
    return Cell(
        structure.lattice.matrix,
        structure.frac_coords,
        [kinds.index(site.species) for site in structure],
        [site.specie.symbol if site.is_ordered else "" for site in structure],
        np.array([op.affine_matrix[:3] for op in parser.symmetry_operations]),
        structure,
    )


def structure(text: str) -> Structure:
    """The crystal of a CIF as people have them: exactly what pymatgen's CifParser reads, most often faster.

    A standard text, whose symmetry loop stands for its group, is read as such. Oxidation states are left out.

    Raises:
        CrystallmError: it is no crystal; says why.
    """
    from crystallm.cif import standard_structure

    found = _quickly(text)
    if found is not None:
        return found
    if text.startswith("data_") and "_atom_type_electronegativity" in text:
        with suppress(CrystallmError):
            return standard_structure.to_structure(text)
    from pymatgen.core import Structure

    try:
        with quiet_libraries():
            parsed = Structure.from_str(text, fmt="cif")
    except Exception as error:  # noqa: BLE001 - of many types, on texts of any kind; the reason carries it
        why = (str(error) or type(error).__name__).splitlines()[-1][:120]
        raise TextError(f"no crystal can be read: {why}") from None
    return parsed.remove_oxidation_states()


def _quickly(text: str) -> Structure | None:
    """The crystal of a plain CIF; None where CifParser, or the reader of standard texts, has to be asked."""
    from pymatgen.core import Structure

    if "\n;" in text:  # a text field over several lines, in which anything may stand
        return None
    block = read_block(text)
    name = next((name for name in OPERATORS if any(name in columns for columns, _ in block.loops)), None)
    if name is None:
        return None
    try:
        operators = tuple(row[name] for row in block.rows(name))
        if len(operators) == 1 and printed_group(block) not in (None, "P1"):
            return None
        parameters = [number(block.tags[tag]) for tag in LENGTHS + ANGLES]
        sites = [
            (
                row_symbol(row),
                [number(row[axis]) for axis in POSITION],
                number(row.get("_atom_site_occupancy", "1")),
            )
            for row in block.atoms()
        ]
    except (CrystallmError, KeyError):
        return None
    if not operators or len(sites) * len(operators) > MAX_IMAGES:
        return None
    cell = at_once(parameters, operators, sites)
    return None if cell is None else Structure(cell.vectors, cell.symbols, cell.coords)


def read_structure(text: str) -> Structure:
    """The crystal of a standard text or CIF, read as the judge reads it (see the module).

    Raises:
        CrystallmError: it can't be read; the message says why.
    """
    with quiet_libraries():
        return cell(read(text)).to_structure()
