"""Crystal structure prediction: how often a reference structure is among the samples for its composition.

For entry i with reference structure T_i and samples S_i1, S_i2, ... (in the order of generation):

- T_i is symmetrized first: what pymatgen's `CifWriter(T_i, symprec=0.1)` writes, read back.
- S_ij counts if its cell is plausible (lengths in [0.5, 1000] Å, angles in [10, 170] degrees), its
  composition passes the SMACT test, no two of its atoms are closer than 0.5 Å, and its volume is at least 0.1
  Å^3.
- r_ij is the root mean square distance of `StructureMatcher(stol=0.5, angle_tol=10, ltol=0.3).get_rms_dist`
  between T_i and S_ij, normalized by (V / n_atoms)^(1/3); undefined where S_ij does not count or match.
- match rate at n: the share of ALL entries with some r_ij, j <= n. RMSE at n: the mean over those entries of
  min_{j <= n} r_ij.

The SMACT test requires one oxidation state per element (SMACT's list of 2014, `smact14`) such that the
charges add up to zero and every positive element is less electronegative than every negative one. One-element
and all-metal compositions pass.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError, install, quiet_libraries
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
"""Distance tolerance of the symmetrization, Å."""


@dataclass(frozen=True, slots=True)
class Distance:
    """Distance between a sample and its reference structure.

    Attributes:
        rms: normalized rms distance; None: no match.
        reason: why they were not compared ("" if they were).
        passes_smact: whether the composition passes the SMACT test; True if not tested.
    """

    rms: float | None
    reason: str
    passes_smact: bool = True


def distances(
    truths: Sequence[Structure],
    candidates_by_entry: Sequence[Sequence[Sample]],
    *,
    workers: int = 1,
    seconds: float = 60.0,
    symmetrise: bool = True,
    composition_test: bool = True,
    on_done: Callable[[int], None] | None = None,
    executor: Executor | None = None,
) -> list[list[Distance]]:
    """Compute distances between samples and reference structures, regardless of the SMACT test.

    Args:
        truths: reference structures, as in their data set.
        candidates_by_entry: samples of each entry in the order of generation: structures, CIFs, standard
            texts, or None for a sample that is not a crystal.
        seconds: limit of one comparison.
        symmetrise: whether to symmetrize the references; False if they are already.
        composition_test: whether to apply the SMACT test, as the paper does. Needs the extra `bench`.
        on_done: called with the index of each comparison after it, from a worker's thread.

    Raises:
        CrystallmError: SMACT is not installed, or no worker could be started.
    """
    if composition_test and find_spec("smact") is None:
        raise CrystallmError(f"the composition test needs SMACT: {install('bench')}")
    answers = compare_pairs(
        "crystallm.benchmarks.csp:compare_record",
        truths,
        candidates_by_entry,
        {"symmetrise": symmetrise, "smact": composition_test},
        workers=workers,
        limits=Limits(seconds),
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
    """Apply a function to every pair of a reference structure and a sample, in worker processes.

    Args:
        function: as for `run_tasks`; its task holds `truth` (see `truth_of`), `sample` (JSON) and the
            options.
        options: of each task; `symmetrise`: whether to symmetrize the reference.

    Returns:
        Value of the function for each entry and sample, or `Failure`; None if the sample is None.
    """
    # One task per distinct pair, as a model may repeat a sample. Tasks of an entry are consecutive, so that a
    # worker reads and symmetrizes its reference once.
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


def symmetrize(structure: Structure) -> Structure:
    """Return the structure that `CifWriter(structure, symprec=0.1)` writes, read back.

    Unchanged if the symmetry search fails, or finds operators such as `-x, -y, -z+365/366`, which pymatgen
    prints where a distorted structure has its centre beside the origin.
    """
    from crystallm.sources import parsing

    try:
        return parsing.structure(parsing.to_cif(structure, symprec=SYMPREC))
    except Exception:  # noqa: BLE001 - spglib and pymatgen raise many types where there is no dataset
        return structure


def compare(
    truth: Structure, sample: Structure, *, composition_test: bool = True
) -> tuple[float | None, str]:
    """Compare a sample with a symmetrized reference, in this process and without time limit.

    Returns:
        The normalized rms distance, None without a match; and why the sample did not count ("" if it was
        compared).
    """
    with quiet_libraries():  # pymatgen warns about missing radii
        reason = _exclusion(sample, composition_test)
        if reason:
            return None, reason
        # The matcher maps equal atoms of primitive cells one to one.
        if sample.composition.reduced_formula != truth.composition.reduced_formula:
            return None, f"its formula is {sample.composition.reduced_formula}"
        if comparison.too_stretched(sample, truth):
            return None, ""
        # The sample first, as in the original: the matcher is not symmetric, which changes a few results.
        match = comparison.matcher(comparison.CSP).get_rms_dist(sample, truth)  # type: ignore[no-untyped-call]
    return (None if match is None else float(match[0])), ""


def compare_record(task: Mapping[str, Any]) -> dict[str, Any]:
    """Compare the structures of a JSON task, in a worker process."""
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
    """Return the reference structure of a task, symmetrized if requested."""
    record = json.loads(packed)
    structure = conversion.from_json(record)
    return symmetrize(structure) if record["symmetrise"] else structure


def _exclusion(sample: Structure, composition_test: bool) -> str:
    """Return why a sample does not count; "" if it does."""
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
