"""Structure classes of the paper: rutile, spinel, elpasolite, pyrochlore, cubic perovskite.

A crystal belongs to a class if, in the standard setting of spglib (0.1 Å, 5 degrees),

- it has the space group of the class, and its elements occupy the Wyckoff positions of the class, for one of
  the origins that the normalizer of the group makes equivalent;
- X, the most electronegative element, is an anion former on the position of X (which excludes
antiperovskites); - each cation has the coordination number of the class: n_X(nearest * a < d < farthest * a)
equals it, and no X
  is nearer. This constrains free coordinates to the polyhedra of the class.

StructureMatcher.fit_anonymous against a prototype is too lenient where a class is defined by symmetry: a
tetragonal perovskite fits the cubic one, and so does a swap of cation and anion.

For formula i, a_i is the mean over its samples of the class with the same element on each role; likewise c_i.
A formula is found if there is such a sample. Over the found formulas, with the known A_i:

    MAE = mean |a_i - A_i|        R^2 = 1 - sum (a_i - A_i)^2 / sum (A_i - mean A)^2
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from crystallm.analysis.prototypes import PROTOTYPES, classify, prototype_of
from crystallm.benchmarks.reference_sets import spread
from crystallm.crystallography import formula
from crystallm.crystals.crystal import Crystal
from crystallm.errors import CrystallmError, InputError, TextError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pymatgen.core import Structure

    from crystallm.analysis.prototypes import Member

    Sample = Crystal | Structure | str | None

COLUMNS = ("formula", "class", "a", "c", "id", "source", "license", "split")
"""Columns of a file of known cells; lengths in Å, c only if it differs from a."""


@dataclass(frozen=True, slots=True)
class ClassReference:
    """A compound of a class, with its known cell.

    Attributes:
        formula: with the elements in the order of the roles.
        a: Å.
        c: Å, None if it equals a.
        split: `train`, or val or test: not in the training data of the bundled models.
    """

    formula: str
    name: str
    a: float
    c: float | None = None
    id: str = ""
    source: str = ""
    license: str = ""
    split: str = ""

    @property
    def unseen(self) -> bool:
        """Whether no crystal of the formula is in the training data of the bundled models."""
        return self.split in {"val", "test"}

    @property
    def known(self) -> dict[str, float]:
        """Known lengths by name, Å."""
        return {"a": self.a} if self.c is None else {"a": self.a, "c": self.c}


@dataclass(frozen=True, slots=True)
class FormulaResult:
    """Result of one formula.

    Attributes:
        n_found: number of samples of the class, with the same element on each role.
        lengths: means over these by name, Å; empty if there are none.
    """

    reference: ClassReference
    n: int
    n_found: int
    lengths: dict[str, float]


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Scores of a class.

    Attributes:
        found: share of formulas found, 0 to 1.
        r2: R^2 of each free length over the found formulas; NaN for fewer than two.
        mae: mean absolute error of each free length, Å; NaN for none.
    """

    n: int
    found: float
    r2: dict[str, float]
    mae: dict[str, float]


@dataclass(frozen=True, slots=True)
class ClassesResult:
    """Results of all formulas, in the order of the references."""

    rows: tuple[FormulaResult, ...]

    def scores(self, *, unseen: bool = False) -> dict[str, ClassScore]:
        """Return the scores of each class, over all its formulas or only the unseen ones."""
        rows = [row for row in self.rows if row.reference.unseen or not unseen]
        names = [name for name in PROTOTYPES if any(row.reference.name == name for row in rows)]
        return {name: _score([row for row in rows if row.reference.name == name]) for name in names}


def evaluate(references: Sequence[ClassReference], crystals: Mapping[str, Sequence[Sample]]) -> ClassesResult:
    """Determine the class of each sample, and compare the cells of those of the formula's class.

    Args:
        crystals: samples by formula as in the references: crystals of `generate`, structures, CIFs or
            standard texts; None for a sample that is not a crystal. A missing formula has no sample.

    Raises:
        InputError: no reference, a duplicate formula, an unknown class, or samples of an unknown formula.
    """
    names = [reference.formula for reference in references]
    if not names:
        raise InputError("no formula: give at least one")
    if len(set(names)) < len(names):
        duplicate = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{duplicate!r} occurs twice: remove one")
    if unknown := set(crystals) - set(names):
        raise InputError(f"crystals for {min(unknown)!r}, which is none of the {len(names)} formulas")
    return ClassesResult(
        tuple(_result(reference, list(crystals.get(reference.formula, ()))) for reference in references)
    )


def read_references(
    path: str | Path | None = None,
    *,
    classes: Sequence[str] = (),
    unseen: bool = False,
    limit: int | None = None,
) -> list[ClassReference]:
    """Read compounds with their known cells.

    Args:
        path: CSV file with the columns formula, class, a[, c, id, source, license, split]; None for our own.
        classes: only these; all if empty.
        unseen: only formulas that are not in the training data of the bundled models.

    Raises:
        InputError: an invalid file, class or row, or no formula is left.
        CrystallmError: the file cannot be read.
    """
    if unknown := [name for name in classes if name not in PROTOTYPES]:
        raise InputError(f"no class {unknown[0]!r}: there are {', '.join(PROTOTYPES)}")
    if limit is not None and limit < 1:
        raise InputError(f"limit = {limit}: write a whole number from 1")
    own = files("crystallm.benchmarks") / "data" / "classes.csv"
    source = Path(str(own)) if path is None else Path(path)
    matching = [
        reference
        for reference in _read(source)
        if (not classes or reference.name in classes) and (reference.unseen or not unseen)
    ]
    references: list[ClassReference] = []
    for name in PROTOTYPES:
        references += spread([reference for reference in matching if reference.name == name], limit)
    if not references:
        which = f" of {', '.join(classes)}" if classes else ""
        raise InputError(f"{str(source)!r} has no {'unseen ' if unseen else ''}formula{which}")
    return references


# -- one formula, one class ----------------------------------------------------------------------------------


def _result(reference: ClassReference, samples: Sequence[Sample]) -> FormulaResult:
    prototype = prototype_of(reference.name)
    symbols = tuple(formula.parse(reference.formula))
    members = [
        member
        for member in (_classify(sample) for sample in samples)
        if member is not None and (member.name, member.elements) == (reference.name, symbols)
    ]
    lengths = {
        name: math.fsum(getattr(member, name) for member in members) / len(members)
        for name in prototype.lengths
        if members
    }
    return FormulaResult(reference, len(samples), len(members), lengths)


def _classify(sample: Sample) -> Member | None:
    """Return the class of a sample; None if it has none or is not a crystal."""
    if sample is None:
        return None
    try:
        if isinstance(sample, str):
            from crystallm.sources import parsing

            return classify(parsing.structure(sample))
        return classify(sample.structure if isinstance(sample, Crystal) else sample)
    except (CrystallmError, TextError):
        return None


def _score(rows: Sequence[FormulaResult]) -> ClassScore:
    found_rows = [row for row in rows if row.n_found]
    r2, mae = {}, {}
    for name in prototype_of(rows[0].reference.name).lengths:
        pairs = [(row.lengths[name], row.reference.known[name]) for row in found_rows]
        mae[name] = math.fsum(abs(x - y) for x, y in pairs) / len(pairs) if pairs else math.nan
        mean = math.fsum(y for _, y in pairs) / max(len(pairs), 1)
        variation = math.fsum((y - mean) ** 2 for _, y in pairs)
        residual = math.fsum((x - y) ** 2 for x, y in pairs)
        r2[name] = 1 - residual / variation if len(pairs) > 1 and variation > 0 else math.nan
    return ClassScore(n=len(rows), found=len(found_rows) / len(rows), r2=r2, mae=mae)


# -- files ---------------------------------------------------------------------------------------------------


def _read(path: Path) -> Iterator[ClassReference]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in COLUMNS[:3] if name not in (reader.fieldnames or ())]:
                raise InputError(
                    f"{str(path)!r} has no column {missing[0]!r}: the first line must name formula,class,a"
                )
            for record in reader:
                try:
                    yield _reference(record)
                except InputError as error:
                    raise InputError(f"{str(path)!r}, line {reader.line_num}: {error}") from None
    except OSError as error:
        raise CrystallmError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{str(path)!r} is not a CSV file in UTF-8: {error}") from None


def _reference(record: Mapping[str, str | None]) -> ClassReference:
    value = {name: (record.get(name) or "").strip() for name in COLUMNS}
    prototype = prototype_of(value["class"])
    if tuple(formula.parse(value["formula"]).values()) != prototype.counts:
        raise InputError(
            f"{value['formula']!r} is not a {prototype.name}: write {prototype.roles} in this order"
        )
    lengths: dict[str, float] = {}
    for name in prototype.lengths:
        try:
            lengths[name] = float(value[name])
        except ValueError:
            lengths[name] = math.nan
        if not 0 < lengths[name] < math.inf:
            raise InputError(f"{name} = {value[name]!r}: write the length in Å, such as 4.59")
    more = {name: value[name] for name in ("id", "source", "license", "split")}
    return ClassReference(value["formula"], prototype.name, lengths["a"], lengths.get("c"), **more)
