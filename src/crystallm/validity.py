"""Is this text a sound crystal? The checks of the paper on one crystal, and on many in worker processes.

For a text with head line H, sum formula S, structural formula F, printed group G, cell (a, b, c, alpha, beta,
gamma) and atom rows (element e_k, multiplicity m_k, position):

- sensible: every printed length lies in [0.5, 1000] Å, every printed angle in [10, 170] degrees.
- formula: H, S and F reduce to the same formula.
- multiplicity: the sum of m_k over the rows of an element is that element's count in S, for all elements.
- bond score: the share of bonds whose length is reasonable (`crystallm.geometry.bonds`).
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
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from crystallm.cif import structure_reader
from crystallm.cif.block import ANGLES, LENGTHS, Block, number, read, row_symbol
from crystallm.crystallography import elements, formula
from crystallm.errors import CrystallmError, InputError, TextError
from crystallm.geometry import bonds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pymatgen.core import Composition, Structure


What = Literal["text", "crystal", "auto"]
"""What of a CIF is judged; see `check`."""
SYMPREC = 0.1
"""Distance tolerance of the symmetry search, Å."""


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


@dataclass(frozen=True, slots=True)
class Facts:
    """What a judge has seen of a crystal; None where it could not be seen.

    Attributes:
        cell_formula: composition of the cell, `Na4Cl4`.
        n_atoms: atoms in the cell.
        volume_per_atom: Å^3.
        cell: a, b, c (Å), alpha, beta, gamma (degrees).
        printed_group: symbol of the space group that the text prints.
        found_group: symbol of the one that spglib finds.
        as_printed: whether the text itself was judged; False for a crystal that was printed anew.
    """

    cell_formula: str | None = None
    n_atoms: int | None = None
    volume_per_atom: float | None = None
    cell: tuple[float, ...] | None = None
    printed_group: str | None = None
    found_group: str | None = None
    as_printed: bool = True


class CrystalLike(Protocol):
    """What can be judged beside a string. Where it has a text `judged`, that is taken before `cif`."""

    @property
    def cif(self) -> str:
        """A CIF with the symmetry operators, as other programs read it; may raise TextError."""
        ...


def check(x: str | CrystalLike, *, what: What = "text") -> Validity:
    """Judge one crystal, in this process and without a limit of time; `check_many` has one.

    Args:
        x: standard text, CIF text, or an object with `.cif`. A standard text holds the identity alone in its
            symmetry loop; the printed group's operators take its place.
        what: `text`, as the paper: what is printed, which may contradict itself. `crystal`: the crystal that
            the CIF tells, in whatever setting, symmetrised and printed anew. `auto`: the text if it is a
            standard text, the crystal if another program has printed it its own way.

    Raises:
        InputError: x is neither a string nor has a `.cif`. Any text, however broken, gets its verdict.
    """
    try:
        return inspect(_text(x), what)[0]
    except TextError as error:
        return _no_text(error)


def inspect(text: str, what: What = "text") -> tuple[Validity, Facts]:
    """Judge a text as `check` does, and tell what was seen of it."""
    as_printed = what == "text" or (what == "auto" and is_standard(text))
    if not as_printed:
        try:
            text = printed_anew(text)
        except CrystallmError as error:
            return _no_text(error), Facts(as_printed=False)
    draft = _Draft(text)
    draft.judge_print()
    draft.judge_structure()
    return draft.verdict(), replace(draft.facts, as_printed=as_printed)


def is_standard(text: str) -> bool:
    """Whether a CIF has the form of a standard text; else another program has printed it its own way.

    That is: the composition of the cell with all its counts in the head line, the same in the sum formula,
    and rows with multiplicities.
    """
    block = read(text)
    head = re.fullmatch(r"(?:[A-Z][a-z]?[0-9]+)+", block.name or "")
    if head is None:
        return False
    try:
        same = _composition(head[0], "") == _composition(block.tags.get("_chemical_formula_sum"), "")
        return same and "_atom_site_symmetry_multiplicity" in block.atoms()[0]
    except CrystallmError:
        return True  # a standard text that is broken


def printed_anew(text: str) -> str:
    """The crystal of a CIF in any setting, symmetrised (0.1 Å) and printed as `cif.to_cif` does.

    Raises:
        CrystallmError: it cannot be read, or is none that a standard text can tell.
    """
    from pymatgen.core import Structure

    from crystallm.cif import writer

    with _quiet():
        try:
            structure = Structure.from_str(text, fmt="cif")
        except Exception as error:  # noqa: BLE001 - pymatgen raises many types on texts of any kind
            why = (str(error) or type(error).__name__).splitlines()[-1][:120]
            raise CrystallmError(f"the CIF can't be read, is it truncated? ({why})") from None
        if len(structure) > bonds.MAX_ATOMS:
            raise CrystallmError(
                f"{len(structure)} atoms in the cell are more than the {bonds.MAX_ATOMS} judged"
            )
        return writer.to_cif(writer.to_text(structure))


def check_many(
    items: Iterable[str | CrystalLike],
    *,
    what: What = "text",
    workers: int = 1,
    seconds: float = 60.0,
    memory_gb: float = 4.0,
) -> list[Validity]:
    """Judge many crystals in worker processes that can be lost.

    Args:
        items: as for `check`.
        what: of each is judged, likewise.
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
    from crystallm.execution import mapping, tasks

    texts: list[str | Validity] = []
    for x in items:
        try:
            texts.append(_text(x))
        except TextError as error:
            texts.append(_no_text(error))
    distinct = list(dict.fromkeys(text for text in texts if isinstance(text, str)))
    answers = mapping.run(
        "crystallm.validity:check_record",
        [{"text": text, "what": what} for text in distinct],
        workers=workers,
        seconds=seconds,
        memory_gb=memory_gb,
    )
    verdicts: dict[str, Validity] = {}
    for text, answer in zip(distinct, answers, strict=True):
        if isinstance(answer, tasks.Lost):
            draft = _Draft(text)
            draft.judge_print()
            draft.reasons.append(f"not judged: {answer.reason}")
            verdicts[text] = draft.verdict()
        else:
            verdicts[text] = from_record(answer)
    return [verdicts[text] if isinstance(text, str) else text for text in texts]


def check_record(task: Mapping[str, Any]) -> dict[str, Any]:
    """`check` as a JSON record, for a worker process."""
    return asdict(check(task["text"], what=task["what"]))


def from_record(record: Mapping[str, Any]) -> Validity:
    """The verdict of a record that `check_record` made."""
    return Validity(**{**record, "reasons": tuple(record["reasons"])})


def read_structure(text: str) -> Structure:
    """The crystal of a standard text or CIF, read as the judge reads it (see the module).

    Raises:
        CrystallmError: it can't be read; the message says why.
    """
    with _quiet():
        return structure_reader.cell(read(text)).to_structure()


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


def _no_text(error: CrystallmError) -> Validity:
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
    facts: Facts = field(default_factory=Facts)
    block: Block = field(init=False)

    def __post_init__(self) -> None:
        self.block = read(self.text)

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
                cell = structure_reader.cell(self.block)
            except CrystallmError as error:
                self.reasons.append(str(error))
                return
            self.facts = _facts(self.block, cell)
            wrong = _wrong_group(self.facts.printed_group, self.facts.found_group)
            if wrong and self.facts.found_group is None and (distance := _shortest(cell)) < SYMPREC:
                wrong = [f"{wrong[0]}: atoms stand {distance:.2f} Å apart"]
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


# -- the checks on what is printed ---------------------------------------------------------------------------


def _odd_cell(block: Block) -> list[str]:
    """Printed cell parameters out of bounds. Missing ones are another matter: they break the reading."""
    wrong = []
    for names, low, high, unit in ((LENGTHS, 0.5, 1000.0, "Å"), (ANGLES, 10.0, 170.0, "degrees")):
        for name in names:
            if name in block.tags:
                try:
                    value = number(block.tags[name])
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


def _formula(block: Block) -> list[str]:
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


def _multiplicity(block: Block) -> list[str]:
    found: dict[str, float] = {}
    try:
        wanted = _composition(block.tags.get("_chemical_formula_sum"), "sum formula").get_el_amt_dict()
        for row in block.atoms():
            if "_atom_site_symmetry_multiplicity" not in row:
                return ["multiplicity: the atom rows print none"]
            symbol = row_symbol(row)
            found[symbol] = found.get(symbol, 0) + number(row["_atom_site_symmetry_multiplicity"])
    except CrystallmError as error:
        return [f"multiplicity: {error}"]
    return [
        f"multiplicity: the rows of {symbol} add up to {found.get(symbol, 0):g}, the sum formula "
        f"has {wanted.get(symbol, 0):g}"
        for symbol in sorted(found.keys() | wanted.keys())
        if found.get(symbol, 0) != wanted.get(symbol, 0)
    ]


def _bond_score(cell: structure_reader.Cell) -> float:
    """See `bonds.score`.

    Raises:
        CrystallmError: likewise, or a site that is no atom of one element.
    """
    if "" in cell.symbols:
        raise CrystallmError(f"bonds: site {cell.symbols.index('')} is shared or partly filled")
    crystal = cell.vectors, cell.coords, cell.symbols
    return bonds.score(*crystal, bonds.orbits(*crystal, cell.operators))


def _facts(block: Block, cell: structure_reader.Cell) -> Facts:
    """What there is to see of a crystal, its symmetry (spglib) among it."""
    import numpy as np
    import spglib

    crystal: Any = (cell.vectors, cell.coords, cell.kinds)
    try:
        # The angle tolerance is pymatgen's; with spglib's own, others of the paper's verdicts come out.
        found = spglib.get_symmetry_dataset(crystal, symprec=SYMPREC, angle_tolerance=5.0)
    except Exception:  # noqa: BLE001 - spglib's errors differ between versions, and mean that it finds none
        found = None
    counts = Counter(cell.symbols)
    known = sorted(counts, key=lambda symbol: (symbol not in elements.symbols(), symbol))
    if all(symbol in elements.symbols() for symbol in known):
        known = elements.electronegativity_order(known)
    return Facts(
        cell_formula=None if "" in counts else formula.short("".join(f"{s}{counts[s]}" for s in known)),
        n_atoms=len(cell.symbols),
        volume_per_atom=abs(float(np.linalg.det(cell.vectors))) / len(cell.symbols),
        cell=tuple(number(block.tags[name]) for name in LENGTHS + ANGLES),
        printed_group=structure_reader.printed_group(block),
        found_group=None if found is None else str(found.international),
    )


def _shortest(cell: structure_reader.Cell) -> float:
    """Shortest distance of two atoms in the cell, Å, found where it is less than half an edge."""
    import numpy as np

    shortest = np.inf
    for i, point in enumerate(cell.coords[:-1]):
        off = cell.coords[i + 1 :] - point
        shortest = min(shortest, np.linalg.norm((off - np.rint(off)) @ cell.vectors, axis=1).min())
    return float(shortest)


def _wrong_group(printed: str | None, found: str | None) -> list[str]:
    """What is wrong with the printed group."""
    if printed is None:
        return ["space group: none is printed"]
    if found is None:
        return [f"space group: {printed} is printed, none is found"]
    return [] if found == printed else [f"space group: {printed} is printed, {found} is found"]
