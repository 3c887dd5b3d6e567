"""Well-known compounds: is there a valid sample for each, and does one match the known structure?

For compound i with reference structure T_i and n samples S_i1, S_i2, ... (in the order of generation):

- success: some S_ij is valid (`crystallm.validity`).
- match: some S_ij fits T_i by pymatgen's StructureMatcher with its defaults (ltol 0.2, stol 0.3, angle_tol 5
  degrees). The paper counts matches and states no tolerances; these are the library's.
- loose match: `csp.compare` returns a normalized rms distance of S_ij and T_i (ltol 0.3, stol 0.5, angle_tol
10
  degrees), without the composition test, which some real compounds fail. A match is also a loose match.
- Shares are over ALL compounds, including those without samples. A sample need not be valid to match.

T_i is symmetrized first (0.1 Å), as for `csp`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystallm.benchmarks import csp
from crystallm.benchmarks.reference_sets import structure_of
from crystallm.crystals.crystal import Crystal
from crystallm.errors import CrystallmError, InputError, TextError, quiet_libraries
from crystallm.execution.mapping import run_tasks
from crystallm.execution.tasks import Failure, Limits
from crystallm.geometry.symmetry_search import find_symmetry
from crystallm.structures import comparison, conversion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pymatgen.core import Structure

    Sample = Crystal | str | None

SYMPREC = 0.1
"""Distance tolerance of the symmetry search, Å."""
ANGLE_TOLERANCE = 5.0
"""Angle tolerance, degrees; as in pymatgen and `validity`."""
_SEEN = {"true": True, "false": False, "": None}


@dataclass(frozen=True, slots=True)
class Compound:
    """A compound whose crystal is known.

    Attributes:
        id: unique in its file.
        structure: any cell.
        name: common or mineral name, "" if none.
        seen: whether it was in the training data; None if unknown.
    """

    id: str
    structure: Structure
    name: str = ""
    seen: bool | None = None

    @property
    def formula(self) -> str:
        """Reduced formula."""
        return str(self.structure.composition.reduced_formula)

    @property
    def space_group(self) -> str:
        """Symbol of the space group, by spglib."""
        return _space_group(self.structure)


@dataclass(frozen=True, slots=True)
class CompoundResult:
    """Result of one compound.

    Attributes:
        first_match: number of the first matching sample, from 1; None: no match.
        first_loose: number of the first loosely matching sample.
        rms: smallest rms distance of a loose match, in units of (V / n_atoms)^(1/3); None: no match.
        likeliest: space group of the valid sample with the highest log-likelihood, or of the first valid one
            if there are no likelihoods; None: no valid sample.
    """

    compound: Compound
    n: int
    n_valid: int
    first_match: int | None
    first_loose: int | None
    rms: float | None
    likeliest: str | None


@dataclass(frozen=True, slots=True)
class CompoundShares:
    """Shares of compounds, 0 to 1; NaN without compounds.

    Attributes:
        n: number of compounds, the denominator.
        success: with a valid sample.
        match: with a match.
        loose: with a loose match.
    """

    n: int
    success: float
    match: float
    loose: float


@dataclass(frozen=True, slots=True)
class CompoundsResult:
    """Results of all compounds, in order."""

    rows: tuple[CompoundResult, ...]

    def shares(self, *, seen: bool | None = None) -> CompoundShares:
        """Return shares of all compounds, or only of those seen (or not seen) in training."""
        rows = [row for row in self.rows if seen is None or row.compound.seen is seen]

        def share(hits: Sequence[bool]) -> float:
            return sum(hits) / len(hits) if hits else math.nan

        return CompoundShares(
            n=len(rows),
            success=share([row.n_valid > 0 for row in rows]),
            match=share([row.first_match is not None for row in rows]),
            loose=share([row.first_loose is not None for row in rows]),
        )


def evaluate(
    compounds: Sequence[Compound],
    crystals: Mapping[str, Sequence[Sample]],
    *,
    workers: int = 1,
    seconds: float = 60.0,
    on_done: Callable[[int], None] | None = None,
) -> CompoundsResult:
    """Check samples and compare them with the known structures.

    Args:
        crystals: samples by id of the compound, in order: crystals of `generate`, whose validity is set here;
            CIFs of any program, checked as by `validity.check` with what = "auto"; None for a sample that is
            not a crystal. A missing compound has no sample.
        seconds: limit of one crystal or comparison.

    Raises:
        InputError: no compound, a duplicate id, or samples of an unknown id.
    """
    ids = [entry.id for entry in compounds]
    if not ids:
        raise InputError("no known compound: give at least one")
    if len(set(ids)) < len(ids):
        duplicate = next(name for name in ids if ids.count(name) > 1)
        raise InputError(f"two compounds have the id {duplicate!r}: rename one")
    if unknown := set(crystals) - set(ids):
        raise InputError(f"crystals for {min(unknown)!r}, which is no id of the {len(ids)} compounds")
    samples = [list(crystals.get(name, ())) for name in ids]
    how: dict[str, Any] = {"workers": workers, "limits": Limits(seconds)}
    groups = iter(_groups([sample for row in samples for sample in row], how))
    comparisons = _compare(compounds, samples, how, on_done)
    return CompoundsResult(
        tuple(
            _result(entry, row, [next(groups) for _ in row], compared)
            for entry, row, compared in zip(compounds, samples, comparisons, strict=True)
        )
    )


def read_compounds(path: str | Path | None = None) -> list[Compound]:
    """Read compounds from a CSV or Parquet file with a column `cif`, from a folder of CIFs, or our own 70.

    Args:
        path: as for `crystallm evaluate`; the columns `name` and `seen` (true or false) of a table are
            optional. None for our own set, whose formulas are not in the training data of the bundled models.

    Raises:
        InputError: no such path, no crystals, or an invalid value of `seen`.
        CrystallmError: an invalid CIF.
    """
    own = files("crystallm.benchmarks") / "data" / "well_known.csv"
    source = Path(str(own)) if path is None else Path(path)
    return [
        Compound(row_id, structure_of(cif, f"{str(source)!r}: {row_id}"), name, seen)
        for row_id, cif, name, seen in _entries(source)
    ]


def compare_record(task: Mapping[str, Any]) -> dict[str, Any]:
    """Compare a sample with the known structure, in a worker process."""
    loose = csp.compare_record(task)
    if loose["rms"] is None:
        # A match within the tighter tolerances would be one within these.
        return {"rms": None, "match": False}
    with quiet_libraries():  # pymatgen warns about missing radii
        match = comparison.matcher().fit(
            conversion.from_json(json.loads(task["sample"])), csp.truth_of(task["truth"])
        )
    return {"rms": loose["rms"], "match": bool(match)}


def group_record(text: str) -> str | None:
    """Return the space group of a CIF in a worker process; None if it is not valid."""
    from crystallm.validity import checks

    validity, facts = checks.inspect(text, "auto")
    return facts.found_group if validity.valid else None


# -- one compound --------------------------------------------------------------------------------------------


def _result(
    compound: Compound,
    samples: Sequence[Sample],
    groups: Sequence[str | None],
    comparisons: Sequence[Mapping[str, Any]],
) -> CompoundResult:
    valid = [i for i, group in enumerate(groups) if group is not None]
    likeliest = max(valid, key=lambda i: _log_likelihood(samples[i]), default=None)
    distances = [comparison["rms"] for comparison in comparisons]
    return CompoundResult(
        compound=compound,
        n=len(samples),
        n_valid=len(valid),
        first_match=_first([comparison["match"] for comparison in comparisons]),
        first_loose=_first([rms is not None for rms in distances]),
        rms=min((rms for rms in distances if rms is not None), default=None),
        likeliest=None if likeliest is None else groups[likeliest],
    )


def _first(hits: Sequence[bool]) -> int | None:
    return hits.index(True) + 1 if True in hits else None


def _log_likelihood(sample: Sample) -> float:
    return sample.log_likelihood if isinstance(sample, Crystal) else -math.inf


def _groups(samples: Sequence[Sample], how: Mapping[str, Any]) -> list[str | None]:
    """Return the space group of each valid sample, None for the others; sets the validity of crystals."""
    from crystallm.validity import checks

    crystals = [sample for sample in samples if isinstance(sample, Crystal)]
    limits: Limits = how["limits"]
    validities = checks.check_many(
        [crystal.checked_text for crystal in crystals],
        workers=how["workers"],
        seconds=limits.seconds,
    )
    for crystal, validity in zip(crystals, validities, strict=True):
        crystal.set_validity(validity)
    texts = list(dict.fromkeys(sample for sample in samples if isinstance(sample, str)))
    answers = run_tasks(None, group_record, texts, **how)
    by_text = dict(zip(texts, answers, strict=True))
    groups: list[str | None] = []
    for sample in samples:
        if isinstance(sample, Crystal):
            groups.append(sample.space_group if sample.validity.valid else None)
        else:
            group = by_text.get(sample or "")
            groups.append(None if isinstance(group, Failure) else group)
    return groups


def _compare(
    compounds: Sequence[Compound],
    samples: Sequence[Sequence[Sample]],
    how: Mapping[str, Any],
    on_done: Callable[[int], None] | None,
) -> list[list[dict[str, Any]]]:
    """Return the rms distance of each sample of each compound, and whether it matches."""
    answers = csp.compare_pairs(
        f"{__name__}:compare_record",
        [entry.structure for entry in compounds],
        [[_comparable(sample) for sample in row] for row in samples],
        {"symmetrise": True, "smact": False},
        on_done=on_done,
        **how,
    )
    no_match = {"rms": None, "match": False}
    return [[answer if isinstance(answer, dict) else no_match for answer in row] for row in answers]


def _comparable(sample: Sample) -> Structure | str | None:
    """Return what a sample is compared by; a crystal of the language cif by its text, see `Crystal`."""
    if not isinstance(sample, Crystal):
        return sample
    try:
        structure = sample.structure
    except TextError:
        return None
    return sample.sampled_text if sample.language.writes_cif else structure


def _space_group(structure: Structure) -> str:
    dataset = find_symmetry(
        structure.lattice.matrix, structure.frac_coords, structure.atomic_numbers, SYMPREC, ANGLE_TOLERANCE
    )
    return "P1" if dataset is None else str(dataset.international)


# -- files ---------------------------------------------------------------------------------------------------


def _entries(path: Path) -> Iterator[tuple[str, str, str, bool | None]]:
    """Yield id, CIF, name and `seen` of the compounds of a collection."""
    from crystallm.sources import collection
    from crystallm.sources import entry as sources_entry
    from crystallm.sources.formats import tables

    is_table = path.is_file() and path.name.lower().endswith(sources_entry.TABLES)
    rows = (
        tables.rows(path, ("name", "seen")) if is_table else ((entry, {}) for entry in collection.read(path))
    )
    for number, (original, record) in enumerate(rows):
        entry = collection.as_cif(original)
        if entry.text is None:
            raise CrystallmError(f"{str(path)!r}: {entry.id} has no CIF ({entry.problem}): remove it")
        seen = record.get("seen")
        text = "" if seen is None else str(seen).strip().lower()
        if text not in _SEEN:
            raise InputError(f"{str(path)!r}, row {number}: seen = {seen!r}: write true or false")
        yield entry.id, entry.text, str(record.get("name") or ""), _SEEN[text]
