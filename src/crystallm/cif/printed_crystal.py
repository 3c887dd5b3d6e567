"""The crystal that a generated text prints, as the CrystaLLM paper reads it: with pymatgen's CifParser.

The operators act on the rows, and images within 1e-4 in fractional coordinates are one atom. The symmetry
loop of a standard text, the identity alone, stands for the printed group. Nothing is repaired, and any text
that has a cell, a group and rows is read, since the paper's checks and benchmark numbers depend on it.
`standard_structure.to_structure` moves atoms onto their Wyckoff positions; `structure_reader` reads CIFs of
other programs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from crystallm.cif.block import (
    CELL,
    GROUP_NAMES,
    LABEL,
    OCCUPANCY,
    OPERATOR_LOOP,
    POSITION,
    SYMBOL,
    Block,
    number,
    row_symbol,
)
from crystallm.crystallography import space_groups
from crystallm.crystallography.cells import pymatgen_vectors
from crystallm.errors import CrystallmError
from crystallm.geometry import bonds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pymatgen.core import Structure

    from crystallm.crystallography.space_groups import Floats

MAX_IMAGES = 10_000
"""Most atom rows times operators of a text; real crystals stay below 3,000."""


def printed_group(block: Block) -> str | None:
    """Return the printed symbol without blanks; None if there is none."""
    symbol = block.first(GROUP_NAMES)
    return None if symbol is None else "".join(symbol.split())


@lru_cache(maxsize=1024)
def _matrices(operators: tuple[str, ...]) -> Floats | None:
    """Return operators [n_ops, 3, 4] as pymatgen reads them; None if it cannot."""
    import numpy as np
    from pymatgen.core import SymmOp

    try:
        return np.array([SymmOp.from_xyz_str(xyz).affine_matrix[:3] for xyz in operators])
    except (ValueError, ZeroDivisionError, IndexError):
        return None


def _operators(block: Block) -> tuple[str, ...]:
    """Return the operators that generate the crystal from the rows.

    The loop of a standard text, `1 'x, y, z'` alone, stands for the printed group, and so does no loop at
    all.

    Raises:
        CrystallmError: the text has no group, or an unknown one.
    """
    if (loop := block.operators()) is not None:
        name, rows = loop
        identity = len(rows) == 1 and len(rows[0]) == 2 and _squeezed(rows[0][name]) == "x,y,z"
        if rows and not identity:
            return tuple(row[name] for row in rows)
    symbol = printed_group(block)
    if symbol is None:
        raise CrystallmError("the text has no space group")
    return space_groups.get(symbol).xyz_operators


def _squeezed(operator: str) -> str:
    return "".join(operator.split()).lower()


@dataclass(frozen=True, slots=True)
class CrystalArrays:
    """A crystal as arrays, for checks.

    Attributes:
        vectors: [3, 3] of the cell (rows), Å.
        coords: [n_atoms, 3] fractions.
        kinds: [n_atoms] numbers, equal for atoms of the same element (or mixture).
        symbols: the element of each atom; "" for a disordered site.
        operators: [n_ops, 3, 4] that generated the atoms from the rows.
    """

    vectors: Floats
    coords: Floats
    kinds: list[int]
    symbols: list[str]
    operators: Floats


def cell(block: Block) -> CrystalArrays:
    """Apply the operators to the rows and merge images within 1e-4.

    Raises:
        CrystallmError: items are missing, or the crystal can't be built or is too large.
    """
    parameters = _parameters(block)
    operators, rows = _operators(block), block.atoms()
    if len(rows) * len(operators) > MAX_IMAGES:
        raise CrystallmError(
            f"{len(rows)} atom rows times {len(operators)} operators are more than the maximum of "
            f"{MAX_IMAGES} images"
        )
    sites = _sites(rows)
    cell = from_arrays(list(parameters.values()), operators, sites) or from_pymatgen(
        parameters, operators, sites
    )
    if len(cell.symbols) > bonds.MAX_ATOMS:
        raise CrystallmError(
            f"{len(cell.symbols)} atoms in the cell are more than the maximum of {bonds.MAX_ATOMS}"
        )
    return cell


def _parameters(block: Block) -> dict[str, float]:
    """Return the cell parameters by name."""
    parameters = {}
    for name in CELL:
        if name not in block.tags:
            raise CrystallmError(f"the text has no {name}")
        parameters[name] = number(block.tags[name])
    return parameters


def _sites(rows: Sequence[Mapping[str, str]]) -> list[tuple[str, list[float], float]]:
    """Return element, position and occupancy of each atom row."""
    sites = []
    for row in rows:
        symbol = row_symbol(row)
        missing = [name for name in POSITION if name not in row]
        if missing:
            raise CrystallmError(f"the atom rows have no {missing[0]}")
        sites.append((symbol, [number(row[name]) for name in POSITION], number(row.get(OCCUPANCY, "1"))))
    return sites


def from_arrays(
    parameters: Sequence[float], operators: tuple[str, ...], sites: Sequence[tuple[str, list[float], float]]
) -> CrystalArrays | None:
    """Build a crystal without pymatgen's parser; None where only that can."""
    import numpy as np

    from crystallm.geometry import symmetry_expansion

    matrices, vectors = _matrices(operators), pymatgen_vectors(parameters)
    if matrices is None or vectors is None or any(occupancy != 1 for _, _, occupancy in sites):
        return None
    symbols = [symbol for symbol, _, _ in sites]
    expanded = symmetry_expansion.atoms(symbols, np.array([position for _, position, _ in sites]), matrices)
    if expanded is None:
        return None
    coords, of_atoms = expanded
    kinds = {symbol: number for number, symbol in enumerate(dict.fromkeys(of_atoms))}
    return CrystalArrays(vectors, coords, [kinds[symbol] for symbol in of_atoms], of_atoms, matrices)


def from_pymatgen(
    parameters: Mapping[str, float], operators: Sequence[str], sites: Sequence[tuple[str, list[float], float]]
) -> CrystalArrays:
    """Build a crystal with pymatgen's CifParser from cell, operators and rows.

    Raises:
        CrystallmError: it rejects them.
    """
    import numpy as np
    from pymatgen.io.cif import CifParser

    lines = ["data_crystal", *(f"{name} {value!r}" for name, value in parameters.items())]
    lines += ["loop_", OPERATOR_LOOP[1], *(f"'{xyz}'" for xyz in operators)]
    lines += ["loop_", SYMBOL, LABEL, *POSITION, OCCUPANCY]
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
    return CrystalArrays(
        structure.lattice.matrix,
        structure.frac_coords,
        [kinds.index(site.species) for site in structure],
        [site.specie.symbol if site.is_ordered else "" for site in structure],
        np.array([op.affine_matrix[:3] for op in parser.symmetry_operations]),
    )
