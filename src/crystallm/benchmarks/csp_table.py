"""Table of the crystal structure prediction benchmark: check samples in blocks, then tabulate.

A row is a sample: its distance to the reference, its validity, its cluster among the samples of the entry.
Rows of a block do not depend on other blocks, so that a killed run can resume. `tabulate` computes the table
from all rows, and METRe, which depends on samples of other entries.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crystallm.benchmarks import csp, metrics
from crystallm.crystals import ranking
from crystallm.errors import CrystallmError
from crystallm.sources import parsing
from crystallm.structures import duplicates
from crystallm.validity import checks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Executor

    from pymatgen.core import Structure

    from crystallm.benchmarks.metrics import Line
    from crystallm.benchmarks.reference_sets import ReferenceStructure

COLUMNS = {
    "entry": "int32",
    "id": "string",
    "sample": "int32",
    "rms": "float64",
    "passes_smact": "bool",
    "reason": "string",
    "valid": "bool",
    "plausible": "bool",
    "cluster": "int32",
    "fold_seconds": "float64",
    "log_likelihood": "float64",
    "volume_per_atom": "float64",
    "cif": "string",
}
"""Columns of the rows, with pyarrow types. rms: normalized, null without a match, regardless of the SMACT
test. volume_per_atom: Å^3, null without clusters. fold_seconds: time per sample of finding the
clusters of the block. cif: the text that was compared."""
MAX_PAIRS = 20_000
"""Maximum number of comparisons for METRe; some hundredths of a second each."""


@dataclass(frozen=True, slots=True)
class CspSample:
    """A sample of an entry, from a model or another program.

    Attributes:
        cif: None if it is not a crystal.
        log_likelihood: NaN if unknown.
    """

    cif: str | None
    log_likelihood: float = math.nan


def check_samples(
    entries: Sequence[tuple[int, ReferenceStructure]],
    samples: Sequence[Sequence[CspSample]],
    *,
    workers: int = 1,
    composition_test: bool = True,
    agreement: bool = True,
    on_done: Callable[[int], None] | None = None,
    executor: Executor | None = None,
) -> list[dict[str, Any]]:
    """Check the samples of some entries and compare them with the references.

    Args:
        entries: indices in the benchmark and reference structures.
        samples: of each entry, in the order of generation.
        agreement: whether to cluster equal samples, for the choice of one sample.

    Returns:
        A row per sample, with COLUMNS.

    Raises:
        CrystallmError: SMACT is not installed, or no worker could be started.
    """
    distances = csp.distances(
        [reference.structure for _, reference in entries],
        [[sample.cif for sample in row] for row in samples],
        workers=workers,
        composition_test=composition_test,
        on_done=on_done,
        executor=executor,
    )
    texts = [sample.cif for row in samples for sample in row if sample.cif is not None]
    validities = iter(checks.check_many(texts, workers=workers, what="auto", executor=executor))
    verdicts = [[None if sample.cif is None else next(validities) for sample in row] for row in samples]
    started = time.monotonic()
    clusters: Sequence[Sequence[int | None]] = [[None] * len(row) for row in samples]
    structures: list[list[Structure | None]] = [[None] * len(row) for row in samples]
    seconds = None
    if agreement:
        structures = [[_structure(sample) for sample in row] for row in samples]
        clusters = duplicates.cluster_duplicates(structures, workers=workers, executor=executor)
        seconds = (time.monotonic() - started) / max(1, sum(map(len, samples)))
    return [
        {
            "entry": number,
            "id": reference.id,
            "sample": j,
            "rms": distances[i][j].rms,
            "passes_smact": distances[i][j].passes_smact,
            "reason": distances[i][j].reason,
            "valid": (verdict := verdicts[i][j]) is not None and verdict.valid,
            "plausible": verdict is not None and verdict.plausible,
            "cluster": clusters[i][j],
            "fold_seconds": seconds,
            "log_likelihood": None if math.isnan(sample.log_likelihood) else sample.log_likelihood,
            "volume_per_atom": ranking.volume_per_atom(structures[i][j]),
            "cif": sample.cif,
        }
        for i, ((number, reference), row) in enumerate(zip(entries, samples, strict=True))
        for j, sample in enumerate(row)
    ]


def _structure(sample: CspSample) -> Structure | None:
    if sample.cif is None:
        return None
    try:
        return parsing.structure(sample.cif)
    except CrystallmError:
        return None


def tabulate(
    references: Sequence[ReferenceStructure],
    rows: Sequence[Mapping[str, Any]],
    n: Sequence[int],
    *,
    composition_test: bool = True,
    workers: int = 1,
    on_done: Callable[[int], None] | None = None,
    executor: Executor | None = None,
) -> list[metrics.Line]:
    """Compute the table of the benchmark.

    Args:
        rows: of `check_samples`, of all entries.

    Returns:
        Lines: as the paper, all samples, valid samples; one of the largest n by agreement and by likelihood;
        METRe with cRMSE.
    """
    by_entry: list[list[Mapping[str, Any]]] = [[] for _ in references]
    for row in rows:
        by_entry[row["entry"]].append(row)
    plain = [[row["rms"] for row in own] for own in by_entry]
    paper = [[row["rms"] if row["passes_smact"] else None for row in own] for own in by_entry]
    valid = [[row["rms"] if row["valid"] else None for row in own] for own in by_entry]
    lines = []
    if composition_test:
        lines += [metrics.line("as the paper", k, metrics.best_of(paper, k)) for k in n]
    lines += [metrics.line("all samples", k, metrics.best_of(plain, k)) for k in n]
    lines += [metrics.line("valid samples", k, metrics.best_of(valid, k)) for k in n]
    if max(n) > 1 and any(row["fold_seconds"] is not None for row in rows):
        lines += _one_of_n(by_entry, max(n))
    options: dict[str, Any] = {"workers": workers, "on_done": on_done, "executor": executor}
    lines += _with_polymorphs(references, by_entry, plain, n, **options)
    return lines


def growth(
    n_entries: int, rows: Sequence[Mapping[str, Any]], max_n: int
) -> dict[str, list[tuple[float, float]]]:
    """Return match rates (%) against the number of samples, as points by name of the samples counted."""
    counts = {"as the paper": "passes_smact", "valid samples": "valid"}
    numbers = [k for k in (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 200, 500, 1000) if k < max_n] + [max_n]
    curves: dict[str, list[tuple[float, float]]] = {}
    for name, column in counts.items():
        rms: list[list[float | None]] = [[] for _ in range(n_entries)]
        for row in rows:
            rms[row["entry"]].append(row["rms"] if row[column] else None)
        matched = [(k, sum(r is not None for r in metrics.best_of(rms, k))) for k in numbers]
        curves[name] = [(float(k), 100 * n_matched / n_entries) for k, n_matched in matched]
    return curves


def _one_of_n(by_entry: Sequence[Sequence[Mapping[str, Any]]], n: int) -> list[metrics.Line]:
    """Return lines of one sample out of n, chosen without the reference; plausible samples come first."""
    seconds = sum(row["fold_seconds"] or 0 for own in by_entry for row in own) / len(by_entry)
    has_likelihoods = any(row["log_likelihood"] is not None for own in by_entry for row in own)
    lines = []
    for by in ("agreement", "likelihood") if has_likelihoods else ("agreement",):
        best: list[float | None] = []
        for own in by_entry:
            ranks = ranking.rank_samples(
                [row["cluster"] for row in own[:n]],
                [math.nan if (value := row["log_likelihood"]) is None else value for row in own[:n]],
                [bool(row["plausible"]) for row in own[:n]],
                by,
                volumes=[row["volume_per_atom"] for row in own[:n]],
            )
            best.append(own[ranks.index(1)]["rms"] if 1 in ranks else None)
        note = f"folding took {seconds:.2f} s an entry" if by == "agreement" else ""
        lines.append(metrics.line(f"one of {n}, by {by}", 1, best, note=note))
    return lines


def _with_polymorphs(
    references: Sequence[ReferenceStructure],
    by_entry: Sequence[Sequence[Mapping[str, Any]]],
    plain: Sequence[Sequence[float | None]],
    n: Sequence[int],
    *,
    workers: int,
    on_done: Callable[[int], None] | None,
    executor: Executor | None,
) -> list[metrics.Line]:
    """Return METRe and cRMSE, for each n with at most MAX_PAIRS comparisons."""
    groups: dict[tuple[str, int], list[int]] = defaultdict(list)
    for i, reference in enumerate(references):
        # Only structures with equal formula and size of the primitive cell can match.
        primitive = reference.structure.get_primitive_structure()
        groups[primitive.composition.reduced_formula, len(primitive)].append(i)
    pairs = [(i, j) for group in groups.values() for i in group for j in group if i != j]
    allowed = [k for k in n if sum(len(by_entry[j][:k]) for _, j in pairs) <= MAX_PAIRS]
    if not allowed:
        return []
    distances = csp.distances(
        [references[i].structure for i, _ in pairs],
        [[row["cif"] for row in by_entry[j][: max(allowed)]] for _, j in pairs],
        workers=workers,
        composition_test=False,
        on_done=on_done,
        executor=executor,
    )
    others = {pair: [d.rms for d in row] for pair, row in zip(pairs, distances, strict=True)}
    note = f"{len({i for i, _ in pairs})} entries have polymorphs in the set"
    return [
        metrics.line(
            "METRe, cRMSE",
            k,
            metrics.best_with_polymorphs(plain, others, k),
            worst=metrics.NO_MATCH,
            note=note,
        )
        for k in allowed
    ]


LINES = ("counted", "samples", "match rate %", "95 %", "RMSE", "95 %", "")
"""Columns of a benchmark's table."""


def line_cells(line: Line) -> tuple[str, ...]:
    """Format a line under the columns LINES."""

    def error(value: float) -> str:
        return "-" if math.isnan(value) else f"{value:.4f}"

    rates = " to ".join(f"{100 * x:.1f}" for x in line.match_interval)
    errors = "-" if math.isnan(line.rmse) else " to ".join(error(x) for x in line.rmse_interval)
    return line.name, str(line.n), f"{100 * line.match_rate:.2f}", rates, error(line.rmse), errors, line.note
