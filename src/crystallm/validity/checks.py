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
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from crystallm.cif import structure_reader
from crystallm.cif.block import ANGLES, LENGTHS, Block, number, read
from crystallm.crystallography import elements, formula
from crystallm.errors import CrystallmError, InputError, TextError, quiet
from crystallm.geometry import bonds
from crystallm.validity.printed_checks import (
    cell_faults,
    formula_faults,
    multiplicity_faults,
    parse_composition,
)
from crystallm.validity.verdict import StructureFacts, Validity, from_record, no_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from concurrent.futures import Executor

    from crystallm.validity.verdict import CrystalLike, What


SYMPREC = 0.1
"""Distance tolerance of the symmetry search, Å."""


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
        return no_text(error)


def inspect(text: str, what: What = "text") -> tuple[Validity, StructureFacts]:
    """Judge a text as `check` does, and tell what was seen of it."""
    as_printed = what == "text" or (what == "auto" and is_standard(text))
    if not as_printed:
        try:
            text = printed_anew(text)
        except CrystallmError as error:
            return no_text(error), StructureFacts(as_printed=False)
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
        same = parse_composition(head[0], "") == parse_composition(
            block.tags.get("_chemical_formula_sum"), ""
        )
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

    with quiet():
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
    memory_gb: float | None = 4.0,
    executor: Executor | None = None,
) -> list[Validity]:
    """Judge many crystals in worker processes that can be lost.

    Args:
        items: as for `check`.
        what: of each is judged, likewise.
        workers: processes at a time.
        seconds: limit for one crystal.
        memory_gb: limit for one process, GiB.
        executor: where to check; None opens processes for this call.

    Returns:
        One verdict an item, in their order. Where a worker was lost, the verdicts on what is printed stand,
        and the reason says why the others are missing.

    Raises:
        InputError: as `check`, or limits that are not positive.
        CrystallmError: no worker could be started.
    """
    from crystallm.execution.mapping import run_tasks
    from crystallm.execution.tasks import Failure, Limits

    texts: list[str | Validity] = []
    for x in items:
        try:
            texts.append(_text(x))
        except TextError as error:
            texts.append(no_text(error))
    distinct = list(dict.fromkeys(text for text in texts if isinstance(text, str)))
    answers = run_tasks(
        executor,
        check_record,
        [{"text": text, "what": what} for text in distinct],
        workers=workers,
        limits=Limits(seconds, memory_gb),
    )
    verdicts: dict[str, Validity] = {}
    for text, answer in zip(distinct, answers, strict=True):
        if isinstance(answer, Failure):
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
    facts: StructureFacts = field(default_factory=StructureFacts)
    block: Block = field(init=False)

    def __post_init__(self) -> None:
        self.block = read(self.text)

    def judge_print(self) -> None:
        """The checks on what is printed, which cost next to nothing."""
        wrong = cell_faults(self.block)
        self.sensible = not wrong
        self.reasons += wrong
        with quiet():
            for name, wrong_print in (("formula", formula_faults), ("multiplicity", multiplicity_faults)):
                wrong = wrong_print(self.block)
                setattr(self, name, not wrong)
                self.reasons += wrong

    def judge_structure(self) -> None:
        """The checks on the crystal: one reading, one symmetry search, one neighbour search."""
        with quiet():
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


def _bond_score(cell: structure_reader.Cell) -> float:
    """See `bonds.score`.

    Raises:
        CrystallmError: likewise, or a site that is no atom of one element.
    """
    if "" in cell.symbols:
        raise CrystallmError(f"bonds: site {cell.symbols.index('')} is shared or partly filled")
    crystal = cell.vectors, cell.coords, cell.symbols
    return bonds.score(*crystal, bonds.orbits(*crystal, cell.operators))


def _facts(block: Block, cell: structure_reader.Cell) -> StructureFacts:
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
    return StructureFacts(
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
