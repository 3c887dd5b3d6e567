"""Check whether a text is a valid crystal, as the CrystaLLM paper does, and a plausible one.

For a text with head line H, sum formula S, structural formula F, printed group G, cell (a, b, c, alpha, beta,
gamma) and atom rows (element e_k, multiplicity m_k, position):

- sensible: every printed length lies in [0.5, 1000] Å, every printed angle in [10, 170] degrees.
- formula: H, S and F reduce to the same formula.
- multiplicity: the sum of m_k over the rows of an element is that element's count in S, for all elements.
- bond score: the share of bonds whose length is reasonable (`crystallm.geometry.bonds`).
- space group: spglib (symprec 0.1 Å) finds G.
- valid: all of these, with a bond score of 1: it passes the paper's checks.
- plausible: valid, with the distances and the volume of known crystals (`crystallm.geometry.distances`). The
  paper's checks pass hydrogen atoms 0.4 Å apart, and oxygen atoms 0.9 Å apart.

The crystal is read as in the paper: the operators of G act on the rows, and images within 1e-4 in fractional
coordinates are one atom (pymatgen's `CifParser`). So a text whose rounded coordinates double an atom is not
valid here, even if `crystallm.cif` can read it. No text is repaired.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from crystallm.cif import printed_crystal
from crystallm.cif.block import ANGLES, LENGTHS, Block, number, read
from crystallm.crystallography import elements, formula
from crystallm.errors import CrystallmError, InputError, TextError, quiet_libraries
from crystallm.geometry import bonds, distances
from crystallm.geometry.symmetry_search import find_symmetry
from crystallm.validity.printed_checks import (
    cell_faults,
    formula_faults,
    multiplicity_faults,
    parse_composition,
)
from crystallm.validity.verdict import CrystalLike, StructureFacts, Validity, What, from_record, no_text

SYMPREC = 0.1
"""Distance tolerance of the symmetry search, Å."""


def check(x: str | CrystalLike, *, what: What = "text") -> Validity:
    """Check one crystal in this process, without a limit of time; `check_many` has one.

    Args:
        x: standard text, CIF text, or an object with `.cif`. A standard text holds the identity alone in its
            symmetry loop; the printed group's operators take its place.
        what: `text`, as in the paper: the text as printed, which may contradict itself. `crystal`: the
            crystal of the CIF, in any setting, symmetrised and printed as a standard text. `auto`: the text
            if it is a standard text, else the crystal.

    Raises:
        InputError: x is neither a string nor has a `.cif`. Any text, however broken, has a result.
    """
    try:
        return inspect(_text(x), what)[0]
    except TextError as error:
        return no_text(error)


def inspect(text: str, what: What = "text") -> tuple[Validity, StructureFacts]:
    """Check a text as `check` does, and return the facts of its structure as well."""
    as_printed = what == "text" or (what == "auto" and is_standard(text))
    notes: tuple[str, ...] = ()
    if not as_printed:
        try:
            text, notes = as_standard(text)
        except CrystallmError as error:
            return no_text(error), StructureFacts(as_printed=False)
    checks = _Checks(text)
    checks.check_print()
    checks.check_structure()
    return checks.result(), replace(checks.facts, as_printed=as_printed, note="; ".join(notes))


def is_standard(text: str) -> bool:
    """Return whether a CIF has the form of a standard text rather than that of another program.

    A standard text has the composition of the cell with all its counts in the head line, the same in the sum
    formula, and rows with multiplicities.
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
        return True  # a broken standard text


def as_standard(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the crystal of a CIF, symmetrised (0.1 Å), as `cif.writer.to_cif` prints it, and notes.

    Raises:
        CrystallmError: it cannot be read, or written as a standard text.
    """
    from crystallm.cif import writer
    from crystallm.sources import parsing

    found = parsing.read(text)
    if (n_atoms := len(found.structure)) > bonds.MAX_ATOMS:
        raise CrystallmError(
            f"{n_atoms} atoms in the cell are more than the {bonds.MAX_ATOMS} that are checked"
        )
    return writer.to_cif(writer.to_text(found.structure)), found.notes


def check_many(
    items: Iterable[str | CrystalLike],
    *,
    what: What = "text",
    workers: int = 1,
    seconds: float = 60.0,
    executor: Executor | None = None,
) -> list[Validity]:
    """Check many crystals in killable worker processes.

    Returns:
        One result per item, in their order. If a process failed, the checks on the printed text hold, and
        the last reason says why the others are missing.

    Raises:
        InputError: as `check`, or limits that are not positive.
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
    records = run_tasks(
        executor,
        check_record,
        [{"text": text, "what": what} for text in distinct],
        workers=workers,
        limits=Limits(seconds),
    )
    results: dict[str, Validity] = {}
    for text, record in zip(distinct, records, strict=True):
        if isinstance(record, Failure):
            checks = _Checks(text)
            checks.check_print()
            checks.reasons.append(f"not judged: {record.reason}")
            results[text] = checks.result()
        else:
            results[text] = from_record(record)
    return [results[text] if isinstance(text, str) else text for text in texts]


def check_record(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of `check` as a JSON record; runs in a worker process."""
    return asdict(check(task["text"], what=task["what"]))


def _text(x: str | CrystalLike) -> str:
    """Return the text to check."""
    text = x if isinstance(x, str) else getattr(x, "checked_text", None) or getattr(x, "cif", None)
    if not isinstance(text, str):
        raise InputError(
            f"can't judge {type(x).__name__}: give a standard text, a CIF or an object with one as .cif"
        )
    return text


@dataclass(slots=True)
class _Checks:
    """The checks of one text and their results so far."""

    text: str
    sensible: bool = False
    formula: bool = False
    multiplicity: bool = False
    bond_score: float | None = None
    space_group: bool = False
    as_known: bool = False
    reasons: list[str] = field(default_factory=list)
    facts: StructureFacts = field(default_factory=StructureFacts)
    block: Block = field(init=False)

    def __post_init__(self) -> None:
        self.block = read(self.text)

    def check_print(self) -> None:
        """Run the checks on the printed text, which take no time."""
        wrong = cell_faults(self.block)
        self.sensible = not wrong
        self.reasons += wrong
        with quiet_libraries():
            for name, wrong_print in (("formula", formula_faults), ("multiplicity", multiplicity_faults)):
                wrong = wrong_print(self.block)
                setattr(self, name, not wrong)
                self.reasons += wrong

    def check_structure(self) -> None:
        """Run the checks on the structure: one reading, one symmetry search, one neighbour search."""
        with quiet_libraries():
            try:
                cell = printed_crystal.cell(self.block)
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
            unknown = distances.faults(cell.vectors, cell.coords, cell.symbols)
            self.as_known = not unknown
            self.reasons += unknown

    def result(self) -> Validity:
        """Return the results of all checks."""
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
            plausible=valid and self.as_known,
        )


def _bond_score(cell: printed_crystal.CrystalArrays) -> float:
    """Return the share of reasonable bonds; see `bonds.score`."""
    if "" in cell.symbols:
        raise CrystallmError(f"bonds: site {cell.symbols.index('')} is shared or partly filled")
    crystal = cell.vectors, cell.coords, cell.symbols
    return bonds.score(*crystal, bonds.orbits(*crystal, cell.operators))


def _facts(block: Block, cell: printed_crystal.CrystalArrays) -> StructureFacts:
    """Return the facts of a structure, its symmetry among them."""
    import numpy as np

    found = find_symmetry(cell.vectors, cell.coords, cell.kinds, SYMPREC)
    counts = Counter(cell.symbols)
    known = sorted(counts, key=lambda symbol: (symbol not in elements.symbols(), symbol))
    if all(symbol in elements.symbols() for symbol in known):
        known = elements.electronegativity_order(known)
    return StructureFacts(
        cell_formula=None if "" in counts else formula.short({symbol: counts[symbol] for symbol in known}),
        n_atoms=len(cell.symbols),
        volume_per_atom=abs(float(np.linalg.det(cell.vectors))) / len(cell.symbols),
        cell=tuple(number(block.tags[name]) for name in LENGTHS + ANGLES),
        printed_group=printed_crystal.printed_group(block),
        found_group=None if found is None else str(found.international),
    )


def _shortest(cell: printed_crystal.CrystalArrays) -> float:
    """Return the shortest distance of two atoms in the cell, Å, if it is below half an edge."""
    import numpy as np

    shortest = np.inf
    for i, point in enumerate(cell.coords[:-1]):
        off = cell.coords[i + 1 :] - point
        shortest = min(shortest, np.linalg.norm((off - np.rint(off)) @ cell.vectors, axis=1).min())
    return float(shortest)


def _wrong_group(printed: str | None, found: str | None) -> list[str]:
    """Return what is wrong with the printed group."""
    if printed is None:
        return ["space group: none is printed"]
    if found is None:
        return [f"space group: {printed} is printed, none is found"]
    return [] if found == printed else [f"space group: {printed} is printed, {found} is found"]
