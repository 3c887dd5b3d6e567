"""Structure classes: rutile, spinel, elpasolite, pyrochlore, cubic perovskite, as the paper studies them.

A crystal is of a class if, in what spglib (0.1 Å, 5 degrees) standardises it to,

- its space group is the class's, and its elements occupy the class's Wyckoff positions, in one of the choices
  of origin that the group's normaliser makes equal;
- X, the most electronegative element, is an anion former on the position of X (so that antiperovskites and
  the like are out);
- each cation has the class's number of X in a shell: n_X(nearest * a < d < farthest * a) is that number,
  and there is none below. That holds the free coordinates where the class's polyhedra are.

The alternative, StructureMatcher.fit_anonymous against a prototype, is lenient where a class is a matter of
symmetry: with its tolerances a tetragonal perovskite fits the cubic one, and a swap of cation and anion
fits too. Positions are also exact about which cation sits where.

For formula i, the cell parameter of the samples is a_i = the mean over those of its samples that are of the
class with the elements on the same positions; so is c_i. A formula is found if there is one. Over the found
formulas, with the known A_i:

    MAE = mean |a_i - A_i|        R^2 = 1 - sum (a_i - A_i)^2 / sum (A_i - mean A)^2

Refuses to know who wrote the samples.
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
"""Of a file of known cells; lengths in Å, c where it is not a."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A compound of a class, with its known cell.

    Attributes:
        formula: with the elements in the order of the roles.
        name: of the class.
        a: Å.
        c: Å, None where it is a.
        id: where the cell comes from.
        source: the same, the collection.
        license: of the collection.
        split: `train`, or else val or test: not in what the bundled models have read.
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
        """Whether the bundled models have not read a crystal of the formula."""
        return self.split in {"val", "test"}

    @property
    def known(self) -> dict[str, float]:
        """Known lengths by name, Å."""
        return {"a": self.a} if self.c is None else {"a": self.a, "c": self.c}


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one formula.

    Attributes:
        reference: the compound.
        n: samples there were.
        n_found: of the class, with the elements on the same positions.
        lengths: means over these by name, Å; empty where there are none.
    """

    reference: Reference
    n: int
    n_found: int
    lengths: dict[str, float]


@dataclass(frozen=True, slots=True)
class Score:
    """Figures of a class.

    Attributes:
        n: formulas.
        found: share of them that were found, 0 to 1.
        r2: R^2 of each free length over the found formulas; NaN for less than two.
        mae: mean absolute error of each, Å; NaN where none was found.
    """

    n: int
    found: float
    r2: dict[str, float]
    mae: dict[str, float]


@dataclass(frozen=True, slots=True)
class ClassesResult:
    """What became of each formula, in the order of the references."""

    rows: tuple[Row, ...]

    def scores(self, *, unseen: bool = False) -> dict[str, Score]:
        """Figures of each class there is, of all its formulas or of the unseen ones alone."""
        kept = [row for row in self.rows if row.reference.unseen or not unseen]
        names = [name for name in PROTOTYPES if any(row.reference.name == name for row in kept)]
        return {name: _score([row for row in kept if row.reference.name == name]) for name in names}


def judge(references: Sequence[Reference], crystals: Mapping[str, Sequence[Sample]]) -> ClassesResult:
    """Find the class of each sample, and compare the cells of those that are of the formula's class.

    Args:
        references: the compounds.
        crystals: for each formula, as the references write it, the samples: crystals of `generate`,
            structures, CIFs or standard texts; None for what is no crystal. A formula that is not in it has
            no sample.

    Raises:
        InputError: no reference, two of one formula, a class that is none, or samples for a formula that is
            none.
    """
    names = [reference.formula for reference in references]
    if not names:
        raise InputError("no formula: give at least one")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{twice!r} stands there twice: remove one")
    if strange := set(crystals) - set(names):
        raise InputError(f"crystals for {min(strange)!r}, which is none of the {len(names)} formulas")
    return ClassesResult(
        tuple(_row(reference, list(crystals.get(reference.formula, ()))) for reference in references)
    )


def read_references(
    path: str | Path | None = None,
    *,
    classes: Sequence[str] = (),
    unseen: bool = False,
    limit: int | None = None,
) -> list[Reference]:
    """Compounds with their known cells.

    Args:
        path: CSV file with the columns formula, class, a[, c, id, source, license, split]; None for our own.
        classes: only these; all if empty.
        unseen: only formulas that the bundled models have not read.
        limit: so many a class, evenly spread over the file.

    Raises:
        InputError: a file, class or row that is none, or nothing is left.
        CrystallmError: the file cannot be read.
    """
    if strange := [name for name in classes if name not in PROTOTYPES]:
        raise InputError(f"no class {strange[0]!r}: there are {', '.join(PROTOTYPES)}")
    if limit is not None and limit < 1:
        raise InputError(f"limit = {limit}: write a whole number from 1")
    place = Path(str(files("crystallm.benchmarks") / "data" / "classes.csv")) if path is None else Path(path)
    kept = [
        reference
        for reference in _read(place)
        if (not classes or reference.name in classes) and (reference.unseen or not unseen)
    ]
    found: list[Reference] = []
    for name in PROTOTYPES:
        found += spread([reference for reference in kept if reference.name == name], limit)
    if not found:
        which = f" of {', '.join(classes)}" if classes else ""
        raise InputError(f"{str(place)!r} has no {'unseen ' if unseen else ''}formula{which}")
    return found


# -- one formula, one class ----------------------------------------------------------------------------------


def _row(reference: Reference, samples: Sequence[Sample]) -> Row:
    prototype = prototype_of(reference.name)
    placed = tuple(formula.parse(reference.formula))
    found = [
        hit
        for hit in (_member_of(sample) for sample in samples)
        if hit is not None and (hit.name, hit.elements) == (reference.name, placed)
    ]
    lengths = {
        name: math.fsum(getattr(hit, name) for hit in found) / len(found)
        for name in prototype.lengths
        if found
    }
    return Row(reference, len(samples), len(found), lengths)


def _member_of(sample: Sample) -> Member | None:
    """The class of a sample; None for what is no crystal, too."""
    if sample is None:
        return None
    try:
        if isinstance(sample, str):
            from crystallm.cif import structure_reader

            return classify(structure_reader.read_structure(sample))
        return classify(sample.structure if isinstance(sample, Crystal) else sample)
    except (CrystallmError, TextError):
        return None


def _score(rows: Sequence[Row]) -> Score:
    found = [row for row in rows if row.n_found]
    r2, mae = {}, {}
    for name in prototype_of(rows[0].reference.name).lengths:
        pairs = [(row.lengths[name], row.reference.known[name]) for row in found]
        mae[name] = math.fsum(abs(x - y) for x, y in pairs) / len(pairs) if pairs else math.nan
        mean = math.fsum(y for _, y in pairs) / max(len(pairs), 1)
        spread = math.fsum((y - mean) ** 2 for _, y in pairs)
        residual = math.fsum((x - y) ** 2 for x, y in pairs)
        r2[name] = 1 - residual / spread if len(pairs) > 1 and spread > 0 else math.nan
    return Score(n=len(rows), found=len(found) / len(rows), r2=r2, mae=mae)


# -- files ---------------------------------------------------------------------------------------------------


def _read(place: Path) -> Iterator[Reference]:
    try:
        with place.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in COLUMNS[:3] if name not in (reader.fieldnames or ())]:
                raise InputError(
                    f"{str(place)!r} has no column {missing[0]!r}: the first line must name formula,class,a"
                )
            for record in reader:
                try:
                    yield _reference(record)
                except InputError as error:
                    raise InputError(f"{str(place)!r}, line {reader.line_num}: {error}") from None
    except OSError as error:
        raise CrystallmError(f"{str(place)!r} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{str(place)!r} is no CSV file in UTF-8: {error}") from None


def _reference(record: Mapping[str, str | None]) -> Reference:
    value = {name: (record.get(name) or "").strip() for name in COLUMNS}
    prototype = prototype_of(value["class"])
    if tuple(formula.parse(value["formula"]).values()) != prototype.counts:
        raise InputError(
            f"{value['formula']!r} is no {prototype.name}: write {prototype.roles} in this order"
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
    return Reference(value["formula"], prototype.name, lengths["a"], lengths.get("c"), **more)
