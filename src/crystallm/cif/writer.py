"""Structure -> standard text -> CIF for other programs.

A standard text gives one atom of each orbit, its multiplicity and the space group, and numbers of four
decimals; its symmetry loop holds the identity alone. From a structure: spglib's standardized conventional
cell (default setting), then, with e the element of an orbit, m its size and r its points,

    representative of an orbit   min over r of (|x|, |y|, |z|)
    order of the rows            (electronegativity of e, -m, x, y, z)
    value printed                round(round(value, 8), 4)

Back from a text: the operators of the printed group act on each row, after it was moved onto the Wyckoff
position of the printed multiplicity, because rounding breaks ties such as (x, 2x, z). Sums that disagree,
cells that do not fit their group and atoms on top of each other are left to `crystallm.validity`.
"""

from __future__ import annotations

from math import asin, cos, degrees, gcd, inf, isfinite, isnan, pi, radians, sin, sqrt
from typing import TYPE_CHECKING

from crystallm.cif import block, parser
from crystallm.cif.parser import parse
from crystallm.cif.standard_structure import wyckoff_orbits
from crystallm.crystallography import cells, elements
from crystallm.errors import InputError, TextError
from crystallm.geometry.symmetry_search import find_symmetry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pymatgen.core import Structure


def to_text(structure: Structure, symprec: float = 0.1) -> str:
    """Return the standard text of a structure.

    Oxidation states and other site properties are left out. Rotated structures have the same text.

    Args:
        structure: a pymatgen Structure, ordered, any cell.
        symprec: distance tolerance of the symmetry search, Å.

    Raises:
        InputError: a disordered site, an element without a token, no atoms or more than `parser.MAX_ATOMS`, a
            cell without volume.
        TextError: spglib finds no symmetry (atoms on top of each other), or the cell holds less than one
            formula unit (a single O, of O2).
    """
    symbols = _symbols(structure)
    numbers = [elements.get(symbol).number for symbol in symbols]
    parameters = structure.lattice.parameters
    if cells.impossible(parameters):
        raise InputError(f"no cell has these lengths and angles: {parameters}")
    lattice = _lattice([round(p, 10) for p in parameters])
    # The lattice of the parameters is right-handed.
    _, fractions = cells.right_handed(structure.lattice.matrix, structure.frac_coords)
    dataset = find_symmetry(lattice, fractions, numbers, symprec)
    if dataset is None:
        raise TextError(f"spglib finds no symmetry at symprec = {symprec} Å: are atoms on top of each other?")
    names = [elements.SYMBOLS_BY_NUMBER[number - 1] for number in dataset.std_types]
    points: list[list[float]] = dataset.std_positions.tolist()
    if len(points) > parser.MAX_ATOMS:
        raise InputError(
            f"{len(points)} atoms in the conventional cell: a text holds at most {parser.MAX_ATOMS}"
        )
    # Orbits are known for the given atoms; the primitive cell links them to the standardized one.
    orbit_of = dict(
        zip(dataset.mapping_to_primitive.tolist(), dataset.crystallographic_orbits.tolist(), strict=True)
    )
    orbits: dict[int, list[int]] = {}
    for atom, primitive in enumerate(dataset.std_mapping_to_primitive.tolist()):
        orbits.setdefault(orbit_of[primitive], []).append(atom)
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    images = [(names[atoms[0]], [points[atom] for atom in atoms]) for atoms in orbits.values()]
    return write(
        counts, dataset.international, dataset.number, _parameters(dataset.std_lattice.tolist()), images
    )


def head(composition: Iterable[tuple[str, int]]) -> str:
    """Return the head line of a cell composition, `data_Na4Cl4`, without the end of line.

    Raises:
        InputError: an element without a token, or no element.
    """
    counts = dict(composition)
    if not counts:
        raise InputError("a composition without an element: write one, such as Na4Cl4")
    return "data_" + "".join(f"{s}{counts[s]}" for s in elements.electronegativity_order(counts))


def properties(symbols: Iterable[str]) -> list[str]:
    """Return the lines of the loop of atomic properties.

    Raises:
        InputError: an element without a token.
    """
    order = elements.electronegativity_order(symbols)
    return ["loop_", *block.PROPERTY_LOOP, *(" ".join((s, *elements.get(s).printed)) for s in order)]


def group_line(symbol: str) -> str:
    """Return the line of the space group, without its end."""
    return f"{block.GROUP} {symbol}"


def formula_unit(counts: dict[str, int]) -> tuple[str, float]:
    """Return the reduced formula as printed, and the number of formula units in these counts.

    Two last elements with less than 1.65 between their electronegativities are a polyanion where they share a
    divisor, `Ca(BO2)2`; diatomic elements and peroxides stay whole, so that one O is half a formula unit.
    """
    formula, factor = _reduced(counts)
    if tuple(elements.electronegativity_order(counts)) in elements.DOUBLED and len(set(counts.values())) == 1:
        doubled, _ = _reduced(counts, 2)
        return doubled, factor / 2
    return formula, factor


def _reduced(counts: dict[str, int], times: int = 1) -> tuple[str, int]:
    order = elements.electronegativity_order(counts)
    factor = gcd(*counts.values())
    tail = ""
    if len(order) >= 3:
        inner, outer = order[-2:]
        difference = elements.get(outer).electronegativity - elements.get(inner).electronegativity
        ions, n_ions = _reduced({s: counts[s] // factor for s in (inner, outer)})
        if difference < 1.65 and n_ions > 1:
            tail, order = f"({ions}){n_ions}", order[:-2]
    units = ((s, counts[s] // factor * times) for s in order)
    return "".join(f"{s}{n}" if n > 1 else s for s, n in units) + tail, factor


def _symbols(structure: Structure) -> list[str]:
    if not 0 < len(structure) <= parser.MAX_ATOMS:
        raise InputError(f"{len(structure)} atoms: a text holds 1 to {parser.MAX_ATOMS}")
    if not isfinite(float(structure.frac_coords.sum())):  # which would crash spglib
        raise InputError(f"{structure.formula}: coordinates with NaN or infinity")
    if not structure.is_ordered:
        raise InputError(f"{structure.formula}: sites shared by elements or partly empty have no text")
    return [str(species.symbol) for species in structure.species]


def _electronegativity(symbol: str) -> float:
    value = elements.get(symbol).electronegativity
    return inf if isnan(value) else value


def write(
    counts: dict[str, int],
    symbol: str,
    number: int,
    cell: Sequence[float],
    orbits: Iterable[tuple[str, list[list[float]]]],
) -> str:
    """Return the standard text of a crystal of known symmetry.

    Args:
        counts: atoms of each element in the cell.
        symbol: of the space group.
        number: of the space group.
        cell: a, b, c (Å), alpha, beta, gamma (degrees).
        orbits: element and all points of each orbit (fractions).

    Raises:
        TextError: the cell holds less than one formula unit.
    """
    rows = []
    for name, points in orbits:
        # Compared to the last bit, as in the published texts: among points that are equal up to rounding
        # errors, those errors decide.
        first = min(points, key=lambda point: [abs(value) for value in point])
        rows.append((name, len(points), first))
    rows.sort(key=lambda row: (_electronegativity(row[0]), -row[1], row[2]))
    formula, units = formula_unit(counts)
    if units < 1:
        raise TextError(f"the cell holds {units} formula units of {formula}: a text has at least one")
    printed = [_print(value) for value in cell]
    lines = [
        head(counts.items()),
        *properties(counts),
        group_line(symbol),
        *(f"{tag} {value}" for tag, value in zip(block.CELL, printed, strict=True)),
        f"{block.NUMBER} {number}",
        f"{block.STRUCTURAL} {formula}",
        f"{block.SUM} {sum_formula(counts)}",
        f"{block.VOLUME} {_print(cells.volume(cell))}",
        f"{block.Z} {int(units)}",
        "loop_",
        *block.OPERATOR_LOOP,
        "1 'x, y, z'",
        "loop_",
        *block.ATOM_LOOP,
    ]
    lines += [
        f"{name} {name}{i} {size} {' '.join(map(_print, point))} 1.0"
        for i, (name, size, point) in enumerate(rows)
    ]
    return "\n".join(lines) + "\n\n"


def sum_formula(counts: Mapping[str, int]) -> str:
    """Return the sum formula as printed, `'Na4 Cl4'`."""
    formula = " ".join(f"{s}{counts[s]}" for s in elements.electronegativity_order(counts))
    return f"'{formula}'" if len(counts) > 1 else formula


def _print(value: float) -> str:
    # The published texts were rounded twice: to 8 decimals by the writer of the CIF, then to 4.
    return f"{float(f'{value:.8f}'):.4f}"


def _lattice(parameters: Sequence[float]) -> list[list[float]]:
    """Return the vectors (rows, Å) of a cell: c along z, a in the plane of x and z."""
    a, b, c = parameters[:3]
    alpha, beta, gamma = map(radians, parameters[3:])
    value = (cos(alpha) * cos(beta) - cos(gamma)) / (sin(alpha) * sin(beta))
    gamma_star = _arccos(max(-1.0, min(1.0, value)))
    return [
        [a * sin(beta), 0.0, a * cos(beta)],
        [-b * sin(alpha) * cos(gamma_star), b * sin(alpha) * sin(gamma_star), b * cos(alpha)],
        [0.0, 0.0, c],
    ]


def _arccos(value: float) -> float:
    """Return the arc cosine by the arc sine, in the classical three ranges.

    The last bit matters: spglib passes it on to the coordinates, where it decides between atoms of an orbit
    that are equally near to the origin (see `to_text`). This form reproduces 500 of 500 published texts; with
    the C library's `acos`, which rounds better, one has another atom of the same orbit.
    """
    if abs(value) <= 0.5:
        return pi / 2 - asin(value)
    if value > 0:
        return 2 * asin(sqrt((1 - value) / 2))
    return pi - 2 * asin(sqrt((1 + value) / 2))


def _parameters(lattice: list[list[float]]) -> tuple[float, ...]:
    """Return a, b, c (Å), alpha, beta, gamma (degrees) of vectors (rows)."""
    lengths = [sqrt(_dot(v, v)) for v in lattice]
    angles = []
    for i, j in ((1, 2), (2, 0), (0, 1)):
        cosine = _dot(lattice[i], lattice[j]) / (lengths[i] * lengths[j])
        angles.append(degrees(_arccos(max(-1.0, min(1.0, cosine)))))
    return (*lengths, *angles)


def _dot(u: Sequence[float], v: Sequence[float]) -> float:
    return u[0] * v[0] + u[1] * v[1] + u[2] * v[2]


def to_cif(text: str) -> str:
    """Return a CIF for other programs, with all operators of the space group.

    Cell as printed; coordinates moved onto their Wyckoff positions, to 8 decimals, so that images of an atom
    coincide; formulas, volume and Z computed from these.

    Raises:
        TextError: as `to_structure`; or the rows hold less than one formula unit (a single O, of O2).
    """
    from crystallm.crystallography import space_groups

    parsed = parse(text)
    group = space_groups.get(parsed.space_group_number)
    counts: dict[str, int] = {}
    atoms = []
    for i, (row, point, _) in enumerate(wyckoff_orbits(parsed)):
        counts[row.symbol] = counts.get(row.symbol, 0) + row.multiplicity
        position = "  ".join(f"{value:.8f}" for value in point)
        atoms.append(f"  {row.symbol}  {row.symbol}{i}  {row.multiplicity}  {position}  1.0")
    formula, units = formula_unit(counts)
    if units < 1:
        raise TextError(f"the rows hold {units} formula units of {formula}: a CIF has at least one")
    lines = [
        "# written by crystallm",
        head(counts.items()),
        f"{block.GROUP}   '{group.symbol}'",
        *(f"{tag}   {value:.4f}" for tag, value in zip(block.CELL, parsed.cell, strict=True)),
        f"{block.NUMBER}   {group.number}",
        f"{block.STRUCTURAL}   '{formula}'",
        f"{block.SUM}   '{sum_formula(counts).strip(chr(39))}'",
        f"{block.VOLUME}   {cells.volume(parsed.cell):.4f}",
        f"{block.Z}   {int(units)}",
        "loop_",
        *(f" {tag}" for tag in block.OPERATOR_LOOP),
        *(f"  {i}  '{operator}'" for i, operator in enumerate(group.xyz_operators, 1)),
        "loop_",
        *(f" {tag}" for tag in block.ATOM_LOOP),
        *atoms,
    ]
    return "\n".join(lines) + "\n"
