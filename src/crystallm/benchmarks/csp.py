"""Crystal structure prediction: how often a known structure is among the samples for its composition.

For entry i with true structure T_i and samples S_i1, S_i2, ... (in the order they were written):

- T_i is symmetrised first: what pymatgen's `CifWriter(T_i, symprec=0.1)` writes, read back.
- S_ij counts if its cell is sensible (lengths in [0.5, 1000] Å, angles in [10, 170] degrees), its composition
  passes the SMACT test, no two of its atoms are closer than 0.5 Å, and its volume is at least 0.1 Å^3.
- r_ij is the root mean square distance of `StructureMatcher(stol=0.5, angle_tol=10, ltol=0.3).get_rms_dist`
  between T_i and S_ij, normalised by (V / n_atoms)^(1/3); none where S_ij does not count or match.
- match rate at n: the share of ALL entries with some r_ij, j <= n. RMSE at n: the mean over those entries of
  min_{j <= n} r_ij.

The SMACT test asks for one oxidation state an element (SMACT's list of 2014, `smact14`), such that the
charges add up to zero and every positive element is less electronegative than every negative one. One-element
and all-metal compositions pass. This module refuses to know who wrote the samples.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError, InputError, install, quiet_libraries
from crystallm.execution.mapping import run_tasks
from crystallm.execution.tasks import Failure, Limits
from crystallm.structures import comparison, conversion
from crystallm.validity.composition_tests import SMALLEST, is_sensible, overlap, passes_smact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Executor

    from pymatgen.core import Structure

    Sample = Structure | str | None


SYMPREC = 0.1
"""Å, of the symmetrised truth."""


@dataclass(frozen=True, slots=True)
class CspResult:
    """Scores of a crystal structure prediction.

    Attributes:
        n_entries: number of test entries, the denominator of every match rate.
        match_rate: for each n, the share of entries with a match among their first n samples, 0 to 1.
        rmse: for each n, the mean over matched entries of their smallest normalised rms distance; NaN where
            nothing matched.
        rms: for each entry, for each sample, its normalised rms distance to the truth; None: no match.
        reasons: for each entry, for each sample, why it did not count ("" if it was compared).
    """

    n_entries: int
    match_rate: dict[int, float]
    rmse: dict[int, float]
    rms: tuple[tuple[float | None, ...], ...]
    reasons: tuple[tuple[str, ...], ...]

    def best(self, n: int) -> tuple[float | None, ...]:
        """For each entry the smallest rms distance among its first n samples; None: no match."""
        return tuple(min((r for r in row[:n] if r is not None), default=None) for row in self.rms)


def evaluate(
    truths: Sequence[Structure],
    candidates_by_entry: Sequence[Sequence[Sample]],
    n: Sequence[int] = (1, 20),
    *,
    workers: int = 1,
    seconds: float = 60.0,
    memory_gb: float = 4.0,
    executor: Executor | None = None,
    symmetrise: bool = True,
    composition_test: bool = True,
    on_done: Callable[[int], None] | None = None,
) -> CspResult:
    """Match rate and RMSE of samples against the known structures.

    Args:
        truths: the test entries, as their data set holds them.
        candidates_by_entry: for each entry its samples, in the order in which they were written: structures,
            CIFs, standard texts, or None for a sample that is no crystal.
        n: how many samples an entry may use, one or several numbers.
        workers: processes at a time, each of which can be lost.
        seconds: limit for one comparison.
        memory_gb: limit for one process, GiB.
        executor: where to compare; None opens processes for this call.
        symmetrise: whether the truth is still to be symmetrised; False if that has been done.
        composition_test: whether to ask for the SMACT test, as the paper does. Needs the extra `bench`.
        on_done: called with the index of each comparison after it, from a worker's thread.

    Raises:
        InputError: no entries, as many truths as lists of samples there are not, or an n below 1.
        CrystallmError: SMACT is not installed, or no worker could be started.
    """
    if not truths or len(truths) != len(candidates_by_entry):
        raise InputError(
            f"{len(truths)} truths and {len(candidates_by_entry)} lists of samples: give one list an entry, "
            "and at least one entry"
        )
    if not n or min(n) < 1:
        raise InputError(f"n = {tuple(n)}: numbers of samples start at 1")
    found = distances(
        truths,
        candidates_by_entry,
        executor=executor,
        workers=workers,
        seconds=seconds,
        memory_gb=memory_gb,
        symmetrise=symmetrise,
        composition_test=composition_test,
        on_done=on_done,
    )
    counted = [[d if d.passes_smact or not composition_test else _refused(d) for d in row] for row in found]
    return score([[d.rms for d in row] for row in counted], n, [[d.reason for d in row] for row in counted])


@dataclass(frozen=True, slots=True)
class Distance:
    """How far a sample is from the truth.

    Attributes:
        rms: normalised rms distance; None: no match.
        reason: why it was not compared ("" if it was).
        passes_smact: whether its composition passes the SMACT test; True where it was not asked.
    """

    rms: float | None
    reason: str
    passes_smact: bool = True


def _refused(distance: Distance) -> Distance:
    return replace(distance, rms=None, reason=distance.reason or "its composition fails the SMACT test")


def distances(
    truths: Sequence[Structure],
    candidates_by_entry: Sequence[Sequence[Sample]],
    *,
    workers: int = 1,
    seconds: float = 60.0,
    memory_gb: float = 4.0,
    symmetrise: bool = True,
    composition_test: bool = True,
    on_done: Callable[[int], None] | None = None,
    executor: Executor | None = None,
) -> list[list[Distance]]:
    """Distances of samples from the known structures, whatever the SMACT test says.

    Arguments as `evaluate`; `executor`: where to compare, in place of processes of this machine.

    Raises:
        CrystallmError: as `evaluate`.
    """
    if composition_test and find_spec("smact") is None:
        raise CrystallmError(f"the composition test needs SMACT: {install('bench')}")
    answers = compare_pairs(
        "crystallm.benchmarks.csp:compare_record",
        truths,
        candidates_by_entry,
        {"symmetrise": symmetrise, "smact": composition_test},
        workers=workers,
        limits=Limits(seconds, memory_gb),
        on_done=on_done,
        executor=executor,
    )

    def distance(answer: Any) -> Distance:
        if isinstance(answer, Failure):
            return Distance(None, f"not compared: {answer.reason}")
        return Distance(None, "no crystal") if answer is None else Distance(**answer)

    return [[distance(answer) for answer in row] for row in answers]


def compare_pairs(
    function: str,
    truths: Sequence[Structure],
    candidates_by_entry: Sequence[Sequence[Sample]],
    options: Mapping[str, Any],
    *,
    executor: Executor | None = None,
    **how: Any,
) -> list[list[Any]]:
    """Apply a function to every pair of a known structure and a sample for it, in worker processes.

    Args:
        function: as for `run_tasks`; its task holds `truth` (see `truth_of`), `sample` (packed, JSON) and
            the options.
        truths: the test entries.
        candidates_by_entry: for each entry its samples.
        options: of each task; `symmetrise`: whether the truth is still to be symmetrised.
        executor: likewise.
        how: arguments of `run_tasks`.

    Returns:
        For each entry, for each sample the function's value, or `Lost`; None for a sample that is None.
    """
    # One task for each distinct pair of truth and sample: a model that is sure of itself repeats itself. The
    # tasks of an entry stand together, so that a worker reads and symmetrises its truth once.
    tasks: dict[tuple[int, str], dict[str, Any]] = {}
    keys: list[list[tuple[int, str] | None]] = []
    for i, (truth, samples) in enumerate(zip(truths, candidates_by_entry, strict=True)):
        packed = json.dumps(conversion.to_json(truth) | {"symmetrise": options["symmetrise"]})
        keys.append([])
        for sample in samples:
            key = None if sample is None else (i, json.dumps(conversion.to_json(sample)))
            keys[-1].append(key)
            if key is not None:
                tasks.setdefault(key, {**options, "truth": packed, "sample": key[1]})
    values = run_tasks(executor, function, list(tasks.values()), **how)
    answers = dict(zip(tasks, values, strict=True))
    return [[None if key is None else answers[key] for key in row] for row in keys]


def score(
    rms: Sequence[Sequence[float | None]], n: Sequence[int], reasons: Sequence[Sequence[str]] | None = None
) -> CspResult:
    """The scores that follow from the rms distance of every sample of every entry (None: no match)."""
    rates: dict[int, float] = {}
    errors: dict[int, float] = {}
    for k in n:
        best = [min(row) for values in rms if (row := [r for r in values[:k] if r is not None])]
        rates[k] = len(best) / len(rms)
        errors[k] = math.fsum(best) / len(best) if best else math.nan
    why = reasons if reasons is not None else [[""] * len(row) for row in rms]
    return CspResult(
        n_entries=len(rms),
        match_rate=rates,
        rmse=errors,
        rms=tuple(tuple(row) for row in rms),
        reasons=tuple(tuple(row) for row in why),
    )


def symmetrised(structure: Structure) -> Structure:
    """The structure that `CifWriter(structure, symprec=0.1)` writes, read back: the benchmark's truth.

    Where the symmetry search finds nothing, the structure as it is.
    """
    from pymatgen.io.cif import CifWriter

    from crystallm.cif import structure_reader

    with quiet_libraries():
        try:
            text = str(CifWriter(structure, symprec=SYMPREC))
        except Exception:  # noqa: BLE001 - spglib and pymatgen raise many types where there is no dataset
            return structure
        return structure_reader.read_structure(text)


def compare(
    truth: Structure, sample: Structure, *, composition_test: bool = True
) -> tuple[float | None, str]:
    """Compare one sample with a symmetrised truth, in this process and without a limit of time.

    Returns:
        The normalised rms distance, None where they do not match; and why the sample did not count ("" if it
        was compared).
    """
    with quiet_libraries():  # pymatgen warns of helium, of each radius it lacks, ...
        reason = _discounted(sample, composition_test)
        if reason:
            return None, reason
        # The matcher wants a one-to-one map of like atoms between primitive cells.
        if sample.composition.reduced_formula != truth.composition.reduced_formula:
            return None, f"its formula is {sample.composition.reduced_formula}"
        if comparison.too_stretched(sample, truth):
            return None, ""
        # The sample first, as in the original: the matcher is not symmetric, and a few results would differ.
        found = comparison.matcher(comparison.CSP).get_rms_dist(sample, truth)  # type: ignore[no-untyped-call]
    return (None if found is None else float(found[0])), ""


def compare_record(task: Mapping[str, Any]) -> dict[str, Any]:
    """`compare` on JSON, for a worker process."""
    try:
        sample = conversion.from_json(json.loads(task["sample"]))
    except CrystallmError as error:
        return {"rms": None, "reason": f"no crystal: {error}"}
    counts = tuple(sorted(sample.composition.get_el_amt_dict().items()))
    passes = not task["smact"] or passes_smact(counts)
    rms, reason = compare(truth_of(task["truth"]), sample, composition_test=False)
    return {"rms": rms, "reason": reason, "passes_smact": passes}


@lru_cache(maxsize=4)
def truth_of(packed: str) -> Structure:
    """A truth out of a task, symmetrised if asked; the tasks of one entry come one after the other."""
    record = json.loads(packed)
    structure = conversion.from_json(record)
    return symmetrised(structure) if record["symmetrise"] else structure


def _discounted(sample: Structure, composition_test: bool) -> str:
    """Why a sample does not count; "" if it does."""
    if not is_sensible(sample):
        return "its cell is not sensible"
    if not sample.is_ordered:
        return "its sites are shared"
    if len(sample) > comparison.MAX_ATOMS:
        return f"{len(sample)} atoms are more than the {comparison.MAX_ATOMS} that are compared"
    if sample.volume < SMALLEST:
        return f"its volume is {sample.volume:.2g} Å^3"
    if composition_test:
        counts = tuple(sorted(sample.composition.get_el_amt_dict().items()))
        if not passes_smact(counts):
            return "its composition fails the SMACT test"
    return overlap(sample)
