"""Well-known compounds: does a model write a sound crystal for each of them, and is it the known one?

For compound i with the known structure T_i and its n samples S_i1, S_i2, ... (in the order in which they
were written):

- success: some S_ij is valid (`crystallm.validity`).
- match: some S_ij fits T_i by pymatgen's StructureMatcher with its defaults (ltol 0.2, stol 0.3, angle_tol 5
  degrees). The paper counts matches and names no tolerances; these are the library's.
- loose match: `csp.compare` gives S_ij and T_i a normalised rms distance (ltol 0.3, stol 0.5, angle_tol 10
  degrees), here without its composition test, which some real compounds fail. All that matches does so too.
- Shares are over ALL compounds, those for which nothing was written among them. A sample need not be valid
  to match.

T_i is symmetrised first (0.1 Å), as for `csp`. Refuses to know who wrote the samples.
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
"""Degrees; pymatgen's, and that of `validity`."""

_SEEN = {"true": True, "false": False, "": None}


@dataclass(frozen=True, slots=True)
class Compound:
    """A compound whose crystal is known.

    Attributes:
        id: tells it from the others of its file.
        structure: any cell.
        name: common or mineral name, "" where it has none.
        seen: whether the model has read it in training; None where that is not told.
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
        """Symbol of the space group that spglib finds."""
        return _space_group(self.structure)


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one compound.

    Attributes:
        compound: which.
        n: samples there were.
        n_valid: valid ones among them.
        first_match: number of the first sample that matches, from 1; None: no match.
        first_loose: the same for loose matches.
        rms: the smallest rms distance of a loose match, a share of (V / n_atoms)^(1/3); None: no match.
        likeliest: space group of the valid sample with the largest log-likelihood, of the first valid one
            where others wrote them; None: no valid sample.
    """

    compound: Compound
    n: int
    n_valid: int
    first_match: int | None
    first_loose: int | None
    rms: float | None
    likeliest: str | None


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of compounds, 0 to 1; NaN where there is no compound.

    Attributes:
        n: compounds, the denominator.
        success: with a valid sample.
        match: with a match.
        loose: with a loose match.
    """

    n: int
    success: float
    match: float
    loose: float


@dataclass(frozen=True, slots=True)
class ChallengeResult:
    """What became of each compound, in the order of the compounds."""

    rows: tuple[Row, ...]

    def shares(self, *, seen: bool | None = None) -> Shares:
        """Shares of all compounds, or of those alone that were seen in training, or were not."""
        rows = [row for row in self.rows if seen is None or row.compound.seen is seen]

        def share(hits: Sequence[bool]) -> float:
            return sum(hits) / len(hits) if hits else math.nan

        return Shares(
            n=len(rows),
            success=share([row.n_valid > 0 for row in rows]),
            match=share([row.first_match is not None for row in rows]),
            loose=share([row.first_loose is not None for row in rows]),
        )


def judge(
    compounds: Sequence[Compound],
    crystals: Mapping[str, Sequence[Sample]],
    *,
    workers: int = 1,
    seconds: float = 60.0,
    memory_gb: float = 4.0,
    on_done: Callable[[int], None] | None = None,
) -> ChallengeResult:
    """Judge samples and compare them with the known structures.

    Args:
        compounds: that are known.
        crystals: for each id the samples in their order: crystals of `generate`, whose verdicts are set here;
            CIFs of any program, of which those that are no standard text are judged as `validity.check` does
            with what = "auto"; None for what is no crystal. A compound that is not in it has no sample.
        workers: processes at a time, each of which can be lost.
        seconds: limit for one crystal or comparison.
        memory_gb: limit for one process, GiB.
        on_done: called with the index of each comparison after it, from a worker's thread.

    Raises:
        InputError: no compound, two of one id, or samples for an id that is none.
        CrystallmError: no worker could be started.
    """
    ids = [entry.id for entry in compounds]
    if not ids:
        raise InputError("no known compound: give at least one")
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise InputError(f"two compounds have the id {twice!r}: rename one")
    if strange := set(crystals) - set(ids):
        raise InputError(f"crystals for {min(strange)!r}, which is none of the {len(ids)} compounds' ids")
    samples = [list(crystals.get(name, ())) for name in ids]
    how: dict[str, Any] = {"workers": workers, "limits": Limits(seconds, memory_gb)}
    groups = iter(_groups([sample for row in samples for sample in row], how))
    compared = _compared(compounds, samples, how, on_done)
    return ChallengeResult(
        tuple(
            _row(entry, row, [next(groups) for _ in row], found)
            for entry, row, found in zip(compounds, samples, compared, strict=True)
        )
    )


def read_compounds(path: str | Path | None = None) -> list[Compound]:
    """Known compounds: of a CSV or Parquet file with a column `cif`, of a folder of CIFs, or our own 70.

    Args:
        path: as `crystallm evaluate` takes it; of a table the columns `name` and `seen` (true or false) are
            read, too, where there are any. None for our own set, whose formulas the bundled models have not
            read.

    Raises:
        InputError: no such place, or one without crystals; a value of `seen` that is none.
        CrystallmError: a CIF that is no structure.
    """
    place = (
        Path(str(files("crystallm.benchmarks") / "data" / "well_known.csv")) if path is None else Path(path)
    )
    return [
        Compound(row_id, structure_of(cif, f"{str(place)!r}: {row_id}"), name, seen)
        for row_id, cif, name, seen in _entries(place)
    ]


def compare_record(task: Mapping[str, Any]) -> dict[str, Any]:
    """Compare a sample with the known structure, for a worker process."""
    found = csp.compare_record(task)
    if found["rms"] is None:
        # What fits within the tighter tolerances would have fitted within these.
        return {"rms": None, "match": False}
    with quiet_libraries():  # pymatgen warns of each radius that it lacks
        match = comparison.matcher().fit(
            conversion.from_json(json.loads(task["sample"])), csp.truth_of(task["truth"])
        )
    return {"rms": found["rms"], "match": bool(match)}


def group_record(text: str) -> str | None:
    """Space group of a valid CIF, None for one that is not valid; for a worker process."""
    from crystallm.validity import checks

    verdict, facts = checks.inspect(text, "auto")
    return facts.found_group if verdict.valid else None


# -- one compound --------------------------------------------------------------------------------------------


def _row(
    compound: Compound,
    samples: Sequence[Sample],
    groups: Sequence[str | None],
    found: Sequence[Mapping[str, Any]],
) -> Row:
    valid = [i for i, group in enumerate(groups) if group is not None]
    likeliest = max(valid, key=lambda i: _log_likelihood(samples[i]), default=None)
    distances = [answer["rms"] for answer in found]
    return Row(
        compound=compound,
        n=len(samples),
        n_valid=len(valid),
        first_match=_first([answer["match"] for answer in found]),
        first_loose=_first([rms is not None for rms in distances]),
        rms=min((rms for rms in distances if rms is not None), default=None),
        likeliest=None if likeliest is None else groups[likeliest],
    )


def _first(hits: Sequence[bool]) -> int | None:
    return hits.index(True) + 1 if True in hits else None


def _log_likelihood(sample: Sample) -> float:
    return sample.log_likelihood if isinstance(sample, Crystal) else -math.inf


def _groups(samples: Sequence[Sample], how: Mapping[str, Any]) -> list[str | None]:
    """Space groups of the samples that are valid, None for the others; sets the verdicts on crystals."""
    from crystallm.validity import checks

    crystals = [sample for sample in samples if isinstance(sample, Crystal)]
    limits: Limits = how["limits"]
    verdicts = checks.check_many(
        [crystal.judged for crystal in crystals],
        workers=how["workers"],
        seconds=limits.seconds,
        memory_gb=limits.memory_gb,
    )
    for crystal, verdict in zip(crystals, verdicts, strict=True):
        crystal.judge(verdict)
    texts = list(dict.fromkeys(sample for sample in samples if isinstance(sample, str)))
    answers = run_tasks(None, group_record, texts, **how)
    found = dict(zip(texts, answers, strict=True))
    groups: list[str | None] = []
    for sample in samples:
        if isinstance(sample, Crystal):
            groups.append(sample.space_group if sample.validity.valid else None)
        else:
            group = found.get(sample or "")
            groups.append(None if isinstance(group, Failure) else group)
    return groups


def _compared(
    compounds: Sequence[Compound],
    samples: Sequence[Sequence[Sample]],
    how: Mapping[str, Any],
    on_done: Callable[[int], None] | None,
) -> list[list[dict[str, Any]]]:
    """For each compound, for each sample its rms distance and whether it matches."""
    answers = csp.compare_pairs(
        f"{__name__}:compare_record",
        [entry.structure for entry in compounds],
        [[_to_compare(sample) for sample in row] for row in samples],
        {"symmetrise": True, "smact": False},
        on_done=on_done,
        **how,
    )
    none = {"rms": None, "match": False}
    return [[answer if isinstance(answer, dict) else none for answer in row] for row in answers]


def _to_compare(sample: Sample) -> Structure | str | None:
    """What is compared of a sample; see `Crystal.judged` for why one language differs."""
    if not isinstance(sample, Crystal):
        return sample
    try:
        structure = sample.structure
    except TextError:
        return None
    return sample.written if sample.language.writes_cif else structure


def _space_group(structure: Structure) -> str:
    found = find_symmetry(
        structure.lattice.matrix, structure.frac_coords, structure.atomic_numbers, SYMPREC, ANGLE_TOLERANCE
    )
    return "P1" if found is None else str(found.international)


# -- files ---------------------------------------------------------------------------------------------------


def _entries(place: Path) -> Iterator[tuple[str, str, str, bool | None]]:
    """Id, CIF, name and `seen` of the compounds of a collection."""
    from crystallm.sources import collection
    from crystallm.sources import entry as sources_entry
    from crystallm.sources.formats import tables

    is_table = place.is_file() and place.name.lower().endswith(sources_entry.TABLES)
    rows = (
        tables.rows(place, ("name", "seen"))
        if is_table
        else ((entry, {}) for entry in collection.read(place))
    )
    for number, (found, record) in enumerate(rows):
        entry = collection.as_cif(found)
        if entry.text is None:
            raise CrystallmError(f"{str(place)!r}: {entry.id} has no CIF ({entry.problem}): remove it")
        seen = record.get("seen")
        told = "" if seen is None else str(seen).strip().lower()
        if told not in _SEEN:
            raise InputError(f"{str(place)!r}, row {number}: seen = {seen!r}: write true or false")
        yield entry.id, entry.text, str(record.get("name") or ""), _SEEN[told]
