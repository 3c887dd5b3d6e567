"""Is this text a sound crystal? The checks of the paper on one crystal, and on many in worker processes.

For a text with head line H, sum formula S, structural formula F, printed group G, cell (a, b, c, alpha, beta,
gamma) and atom rows (element e_k, multiplicity m_k, position):

- sensible: every printed length lies in [0.5, 1000] Å, every printed angle in [10, 170] degrees.
- formula: H, S and F reduce to the same formula.
- multiplicity: the sum of m_k over the rows of an element is that element's count in S, for all elements.
- bond score: the share of bonds whose length is reasonable (`crystallm.bonds`).
- space group: spglib (symprec 0.1 Å) finds G.
- valid: all of these, with a bond score of 1.

The crystal is read as the paper's judge reads it: G's operators act on the rows, and images within 1e-4 in
fractional coordinates are one atom (pymatgen's `CifParser`). A text whose rounded coordinates double an atom
is thus not valid here, even where `crystallm.cif` can still read it. This module refuses to know who wrote
a text, and repairs none.
"""

from __future__ import annotations

import re
import warnings
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from math import isfinite
from typing import TYPE_CHECKING, Any, Protocol

from crystallm import bonds, elements
from crystallm.errors import CrystallmError, InputError, TextError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pymatgen.core import Composition, Structure

    from crystallm.spacegroups import Floats

SYMPREC = 0.1
"""Distance tolerance of the symmetry search, Å."""
MAX_IMAGES = 10_000
"""Atom rows times operators beyond which a text is not judged; real crystals stay below 3,000."""
_LENGTHS = tuple(f"_cell_length_{x}" for x in "abc")
_ANGLES = tuple(f"_cell_angle_{x}" for x in ("alpha", "beta", "gamma"))
_GROUP = ("_symmetry_space_group_name_H-M", "_space_group_name_H-M_alt")
_OPERATORS = ("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz")
_POSITION = tuple(f"_atom_site_fract_{x}" for x in "xyz")


@dataclass(frozen=True, slots=True)
class Validity:
    """The verdicts on one crystal; see the module for what each means.

    Attributes:
        sensible: the printed cell is within bounds.
        formula: the three printed formulas agree.
        multiplicity: the atom rows add up to the sum formula.
        bond_score: share of reasonable bonds, 0 to 1; None where it could not be found.
        space_group: the printed group is the one found.
        valid: all of it, and every bond reasonable.
        reasons: what is wrong, one short sentence each; empty if and only if valid.
    """

    sensible: bool
    formula: bool
    multiplicity: bool
    bond_score: float | None
    space_group: bool
    valid: bool
    reasons: tuple[str, ...]


class CrystalLike(Protocol):
    """What can be judged beside a string. Where it has a text `judged`, that is taken before `cif`."""

    @property
    def cif(self) -> str:
        """A CIF with the symmetry operators, as other programs read it; may raise TextError."""
        ...


def check(x: str | CrystalLike) -> Validity:
    """Judge one crystal, in this process and without a limit of time; `check_many` has one.

    Args:
        x: standard text, CIF text, or an object with `.cif`. A standard text holds the identity alone in its
            symmetry loop; the printed group's operators take its place.

    Raises:
        InputError: x is neither a string nor has a `.cif`. Any text, however broken, gets its verdict.
    """
    try:
        draft = _Draft(_text(x))
    except TextError as error:
        return _no_text(error)
    draft.judge_print()
    draft.judge_structure()
    return draft.verdict()


def check_many(
    items: Iterable[str | CrystalLike], *, workers: int = 1, seconds: float = 60.0, memory_gb: float = 4.0
) -> list[Validity]:
    """Judge many crystals in worker processes that can be lost.

    Args:
        items: as for `check`.
        workers: processes at a time.
        seconds: limit for one crystal.
        memory_gb: limit for one process, GiB.

    Returns:
        One verdict an item, in their order. Where a worker was lost, the verdicts on what is printed stand,
        and the reason says why the others are missing.

    Raises:
        InputError: as `check`, or limits that are not positive.
        CrystallmError: no worker could be started.
    """
    from crystallm import workers as pool

    texts: list[str | Validity] = []
    for x in items:
        try:
            texts.append(_text(x))
        except TextError as error:
            texts.append(_no_text(error))
    distinct = list(dict.fromkeys(text for text in texts if isinstance(text, str)))
    answers = pool.run(
        "crystallm.validity:check_record", distinct, workers=workers, seconds=seconds, memory_gb=memory_gb
    )
    verdicts: dict[str, Validity] = {}
    for text, answer in zip(distinct, answers, strict=True):
        if isinstance(answer, pool.Lost):
            draft = _Draft(text)
            draft.judge_print()
            draft.reasons.append(f"not judged: {answer.reason}")
            verdicts[text] = draft.verdict()
        else:
            verdicts[text] = from_record(answer)
    return [verdicts[text] if isinstance(text, str) else text for text in texts]


def check_record(text: str) -> dict[str, Any]:
    """`check` as a JSON record, for a worker process."""
    return asdict(check(text))


def from_record(record: Mapping[str, Any]) -> Validity:
    """The verdict of a record that `check_record` made."""
    return Validity(**{**record, "reasons": tuple(record["reasons"])})


def read_structure(text: str) -> Structure:
    """The crystal of a standard text or CIF, read as the judge reads it (see the module).

    Raises:
        CrystallmError: it can't be read; the message says why.
    """
    with _quiet():
        return _cell(_read(text)).to_structure()


def _text(x: str | CrystalLike) -> str:
    """The text to judge.

    Raises:
        InputError: there is none in this kind of object.
        TextError: the object is no crystal, and knows it.
    """
    text = x if isinstance(x, str) else getattr(x, "judged", None) or getattr(x, "cif", None)
    if not isinstance(text, str):
        raise InputError(
            f"can't judge {type(x).__name__}: give a standard text, a CIF or an object with one as .cif"
        )
    return text


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings that pymatgen and spglib have for nearly every odd crystal; verdicts say it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _no_text(error: TextError) -> Validity:
    return Validity(
        sensible=False,
        formula=False,
        multiplicity=False,
        bond_score=None,
        space_group=False,
        valid=False,
        reasons=(str(error),),
    )


@dataclass(slots=True)
class _Draft:
    """A verdict in the making."""

    text: str
    sensible: bool = False
    formula: bool = False
    multiplicity: bool = False
    bond_score: float | None = None
    space_group: bool = False
    reasons: list[str] = field(default_factory=list)
    block: _Block = field(init=False)

    def __post_init__(self) -> None:
        self.block = _read(self.text)

    def judge_print(self) -> None:
        """The checks on what is printed, which cost next to nothing."""
        wrong = _odd_cell(self.block)
        self.sensible = not wrong
        self.reasons += wrong
        with _quiet():
            for name, wrong_print in (("formula", _formula), ("multiplicity", _multiplicity)):
                wrong = wrong_print(self.block)
                setattr(self, name, not wrong)
                self.reasons += wrong

    def judge_structure(self) -> None:
        """The checks on the crystal: one reading, one symmetry search, one neighbour search."""
        with _quiet():
            try:
                cell = _cell(self.block)
            except CrystallmError as error:
                self.reasons.append(str(error))
                return
            wrong = _space_group(self.block, cell)
            self.space_group = not wrong
            self.reasons += wrong
            try:
                self.bond_score = _bond_score(cell)
            except CrystallmError as error:
                self.reasons.append(str(error))
                return
            if self.bond_score < 1:
                self.reasons.append(f"bonds: {self.bond_score:.3f} of them have a reasonable length")

    def verdict(self) -> Validity:
        valid = (
            self.sensible
            and self.formula
            and self.multiplicity
            and self.space_group
            and self.bond_score is not None
            and self.bond_score >= 1
        )
        return Validity(
            self.sensible,
            self.formula,
            self.multiplicity,
            self.bond_score,
            self.space_group,
            valid,
            tuple(self.reasons),
        )


# -- reading -------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"""'(.*?)'(?!\S)|"(.*?)"(?!\S)|([^\s'"]\S*|['"]\S*)""")


@dataclass(slots=True)
class _Block:
    """The first data block of a CIF, as it stands: nothing is asked of it yet."""

    name: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    loops: list[tuple[list[str], list[str]]] = field(default_factory=list)
    """Column names and all their values, row after row."""

    def first(self, names: Sequence[str]) -> str | None:
        return next((self.tags[name] for name in names if name in self.tags), None)

    def rows(self, column: str) -> list[dict[str, str]]:
        """The rows of the loop that holds this column; none where there is no such loop.

        Raises:
            CrystallmError: its values don't fill its rows.
        """
        for columns, values in self.loops:
            if column in columns:
                if len(values) % len(columns):
                    raise CrystallmError(
                        f"{len(values)} values do not fill rows of {len(columns)} in the loop of {column}"
                    )
                width = len(columns)
                return [
                    dict(zip(columns, values[i : i + width], strict=True))
                    for i in range(0, len(values), width)
                ]
        return []

    def atoms(self) -> list[dict[str, str]]:
        """The rows of the atom loop.

        Raises:
            CrystallmError: there are none, or broken ones.
        """
        rows = self.rows(_POSITION[0])
        if not rows:
            raise CrystallmError("the text has no atom rows")
        return rows


def _read(text: str) -> _Block:
    """Tags and loops of the first data block; values that stand nowhere are passed over."""
    block = _Block()
    columns: list[str] = []  # of the loop that is being read
    values: list[str] | None = None
    tag: str | None = None  # that waits for its value
    for line in text.splitlines():
        for quoted, double, plain in _TOKEN.findall("" if line.startswith(("#", ";")) else line):
            if plain.startswith("#"):
                break
            if plain.startswith("data_") and not values:
                if block.name is not None:
                    return block
                block.name = plain[5:]
            elif plain == "loop_":
                columns, values, tag = [], [], None
                block.loops.append((columns, values))
            elif plain.startswith("_"):
                if values is not None and not values:
                    columns.append(plain)
                else:
                    values, tag = None, plain
            elif tag is not None:
                block.tags.setdefault(tag, quoted or double or plain)
                tag = None
            elif values is not None and columns:
                values.append(quoted or double or plain)
    return block


def _number(value: str) -> float:
    """A CIF number, its uncertainty in parentheses left out.

    Raises:
        CrystallmError: it is none, or not finite.
    """
    try:
        number = float(value.split("(", maxsplit=1)[0])
    except ValueError:
        raise CrystallmError(f"{value[:20]!r} is not a number") from None
    if not isfinite(number):
        raise CrystallmError(f"{value[:20]!r} is not a finite number")
    return number


def _symbol(value: str) -> str:
    """The element of an atom row: `Na` of `Na`, `Na1+` or `Na0`.

    Raises:
        CrystallmError: it is none.
    """
    match = re.match(r"[A-Z][a-z]?", value)
    if match is None or match[0] not in elements.SYMBOLS_BY_NUMBER:
        raise CrystallmError(f"{value[:20]!r} is not an element")
    return match[0]


def _row_symbol(row: Mapping[str, str]) -> str:
    return _symbol(row.get("_atom_site_type_symbol") or row.get("_atom_site_label", ""))


# -- the checks on what is printed ---------------------------------------------------------------------------


def _odd_cell(block: _Block) -> list[str]:
    """Printed cell parameters out of bounds. Missing ones are another matter: they break the reading."""
    wrong = []
    for names, low, high, unit in ((_LENGTHS, 0.5, 1000.0, "Å"), (_ANGLES, 10.0, 170.0, "degrees")):
        for name in names:
            if name in block.tags:
                try:
                    value = _number(block.tags[name])
                except CrystallmError:
                    continue
                if not low <= value <= high:
                    wrong.append(f"sensible: {name} {value:g} is not in [{low:g}, {high:g}] {unit}")
    return wrong


def _composition(formula: str | None, where: str) -> Composition:
    """The composition of a printed formula.

    Raises:
        CrystallmError: it is missing or none.
    """
    from pymatgen.core import Composition

    if not formula:
        raise CrystallmError(f"the text has no {where}")
    try:
        composition = Composition(formula)
    except Exception:  # noqa: BLE001 - pymatgen raises half a dozen types on what is no formula
        raise CrystallmError(f"the {where} {formula[:40]!r} is not a formula") from None
    if not composition:
        raise CrystallmError(f"the {where} {formula[:40]!r} is empty")
    return composition


def _formula(block: _Block) -> list[str]:
    printed = {
        "head line": block.name,
        "sum formula": block.tags.get("_chemical_formula_sum"),
        "structural formula": block.tags.get("_chemical_formula_structural"),
    }
    try:
        reduced = {where: _composition(value, where).reduced_formula for where, value in printed.items()}
    except CrystallmError as error:
        return [f"formula: {error}"]
    if len(set(reduced.values())) == 1:
        return []
    return ["formula: " + ", ".join(f"{where} {value}" for where, value in reduced.items()) + " differ"]


def _multiplicity(block: _Block) -> list[str]:
    found: dict[str, float] = {}
    try:
        wanted = _composition(block.tags.get("_chemical_formula_sum"), "sum formula").get_el_amt_dict()
        for row in block.atoms():
            if "_atom_site_symmetry_multiplicity" not in row:
                return ["multiplicity: the atom rows print none"]
            symbol = _row_symbol(row)
            found[symbol] = found.get(symbol, 0) + _number(row["_atom_site_symmetry_multiplicity"])
    except CrystallmError as error:
        return [f"multiplicity: {error}"]
    return [
        f"multiplicity: the rows of {symbol} add up to {found.get(symbol, 0):g}, the sum formula "
        f"has {wanted.get(symbol, 0):g}"
        for symbol in sorted(found.keys() | wanted.keys())
        if found.get(symbol, 0) != wanted.get(symbol, 0)
    ]


# -- the checks on the crystal -------------------------------------------------------------------------------


def _printed_group(block: _Block) -> str | None:
    symbol = block.first(_GROUP)
    return None if symbol is None else "".join(symbol.split())


@cache
def _group_operators(symbol: str) -> tuple[str, ...]:
    """The operators of a group as CIF writes them.

    Raises:
        InputError: no such group.
    """
    from crystallm import spacegroups

    group = spacegroups.get(symbol)
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


def _operators(block: _Block) -> tuple[str, ...]:
    """The operators that make the crystal of the rows.

    The loop of a standard text, `1 'x, y, z'` alone, stands for the printed group, and so does no loop at
    all; any other loop is taken at its word.

    Raises:
        CrystallmError: the group has to be looked up and there is none of its name.
    """
    name = next((name for name in _OPERATORS if any(name in columns for columns, _ in block.loops)), None)
    if name is not None:
        rows = block.rows(name)
        identity = len(rows) == 1 and len(rows[0]) == 2 and _squeezed(rows[0][name]) == "x,y,z"
        if rows and not identity:
            return tuple(row[name] for row in rows)
    symbol = _printed_group(block)
    if symbol is None:
        raise CrystallmError("the text has no space group")
    return _group_operators(symbol)


def _squeezed(operator: str) -> str:
    return "".join(operator.split()).lower()


@dataclass(frozen=True, slots=True)
class _Cell:
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
        if self.structure is not None:
            return self.structure
        from pymatgen.core import Structure

        return Structure(self.vectors, self.symbols, self.coords)


def _cell(block: _Block) -> _Cell:
    """The crystal: the operators on the rows, images within 1e-4 merged.

    Raises:
        CrystallmError: something is missing, or it is no crystal, or too large a one.
    """
    parameters = {}
    for name in _LENGTHS + _ANGLES:
        if name not in block.tags:
            raise CrystallmError(f"the text has no {name}")
        parameters[name] = _number(block.tags[name])
    operators, rows = _operators(block), block.atoms()
    if len(rows) * len(operators) > MAX_IMAGES:
        raise CrystallmError(
            f"{len(rows)} atom rows times {len(operators)} operators are more than the {MAX_IMAGES} images "
            "that are judged"
        )
    sites = []
    for row in rows:
        symbol = _row_symbol(row)
        missing = [name for name in _POSITION if name not in row]
        if missing:
            raise CrystallmError(f"the atom rows have no {missing[0]}")
        position = [_number(row[name]) for name in _POSITION]
        sites.append((symbol, position, _number(row.get("_atom_site_occupancy", "1"))))
    cell = _at_once(list(parameters.values()), operators, sites) or _asked(parameters, operators, sites)
    if len(cell.symbols) > bonds.MAX_ATOMS:
        raise CrystallmError(
            f"{len(cell.symbols)} atoms in the cell are more than the {bonds.MAX_ATOMS} judged"
        )
    return cell


def _at_once(
    parameters: Sequence[float], operators: tuple[str, ...], sites: Sequence[tuple[str, list[float], float]]
) -> _Cell | None:
    """The crystal without pymatgen's parser; None where that has to be asked (see `unfold`)."""
    import numpy as np

    from crystallm import unfold

    matrices, vectors = _matrices(operators), _vectors(parameters)
    if matrices is None or vectors is None or any(occupancy != 1 for _, _, occupancy in sites):
        return None
    symbols = [symbol for symbol, _, _ in sites]
    found = unfold.atoms(symbols, np.array([position for _, position, _ in sites]), matrices)
    if found is None:
        return None
    coords, of_atoms = found
    kinds = {symbol: number for number, symbol in enumerate(dict.fromkeys(of_atoms))}
    return _Cell(vectors, coords, [kinds[symbol] for symbol in of_atoms], of_atoms, matrices)


def _vectors(parameters: Sequence[float]) -> Floats | None:
    """Vectors of a cell, Å; None for one so flat that pymatgen would refuse it, or none at all."""
    import numpy as np
    from pymatgen.core import Lattice

    if not all(x > 0 for x in parameters):
        return None
    matrix: Floats = Lattice.from_parameters(*parameters).matrix
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-6:
        return None
    spacings = 1 / np.linalg.norm(np.linalg.inv(matrix), axis=0)
    return matrix if spacings.min() > 0.02 else None  # pymatgen's limit is 0.01 Å


def _asked(
    parameters: Mapping[str, float], operators: Sequence[str], sites: Sequence[tuple[str, list[float], float]]
) -> _Cell:
    """What pymatgen's CifParser makes of cell, operators and rows.

    Raises:
        CrystallmError: it refuses them.
    """
    import numpy as np
    from pymatgen.io.cif import CifParser

    lines = ["data_crystal", *(f"{name} {value!r}" for name, value in parameters.items())]
    lines += ["loop_", "_symmetry_equiv_pos_as_xyz", *(f"'{xyz}'" for xyz in operators)]
    columns = ("_atom_site_type_symbol", "_atom_site_label", *_POSITION, "_atom_site_occupancy")
    lines += ["loop_", *columns]
    for i, (symbol, position, occupancy) in enumerate(sites):
        lines.append(" ".join((symbol, f"{symbol}{i}", *map(repr, position), repr(occupancy))))
    try:
        parser = CifParser.from_str("\n".join(lines))
        structure: Structure = parser.parse_structures(primitive=False, on_error="raise")[0]
    except Exception as error:  # noqa: BLE001 - of many types, on texts of any kind; the reason carries it
        why = (str(error) or type(error).__name__).splitlines()[-1][:120]  # the first line names a "section"
        raise CrystallmError(f"the crystal can't be built: {why}") from None
    kinds = list(dict.fromkeys(site.species for site in structure))
    return _Cell(
        structure.lattice.matrix,
        structure.frac_coords,
        [kinds.index(site.species) for site in structure],
        [site.specie.symbol if site.is_ordered else "" for site in structure],
        np.array([op.affine_matrix[:3] for op in parser.symmetry_operations]),
        structure,
    )


def _bond_score(cell: _Cell) -> float:
    """See `bonds.score`.

    Raises:
        CrystallmError: likewise, or a site that is no atom of one element.
    """
    if "" in cell.symbols:
        raise CrystallmError(f"bonds: site {cell.symbols.index('')} is shared or partly filled")
    crystal = cell.vectors, cell.coords, cell.symbols
    return bonds.score(*crystal, bonds.orbits(*crystal, cell.operators))


def _space_group(block: _Block, cell: _Cell) -> list[str]:
    import spglib

    symbol = _printed_group(block)
    if symbol is None:
        return ["space group: none is printed"]
    try:
        # The angle tolerance is pymatgen's; with spglib's own, others of the paper's verdicts come out.
        crystal: Any = (cell.vectors, cell.coords, cell.kinds)
        found = spglib.get_symmetry_dataset(crystal, symprec=SYMPREC, angle_tolerance=5.0)
    except Exception as error:  # noqa: BLE001 - spglib's errors differ between versions
        return [f"space group: {symbol} is printed, the search failed: {str(error)[:80]}"]
    if found is None:
        return [f"space group: {symbol} is printed, none is found"]
    if found.international != symbol:
        return [f"space group: {symbol} is printed, {found.international} is found"]
    return []
