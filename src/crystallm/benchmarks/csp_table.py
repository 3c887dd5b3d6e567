"""A benchmark of crystal structure prediction from end to end: samples judged in blocks, then one table.

A row is a sample: how far it is from the truth, whether it is valid, which samples of its entry it equals.
The rows of a block need nothing of other blocks, so that a run may be killed and go on. `tabulate` makes the
table out of all rows; what depends on samples of other entries (METRe) is compared there.

Refuses to know where samples come from: a model, or an archive that others wrote.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crystallm.benchmarks import csp, metrics
from crystallm.cif import structure_reader
from crystallm.crystals import ranking
from crystallm.errors import CrystallmError
from crystallm.structures import duplicates
from crystallm.validity import checks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Executor

    from pymatgen.core import Structure

    from crystallm.benchmarks.metrics import Line
    from crystallm.benchmarks.reference_sets import Known


COLUMNS = {
    "entry": "int32",
    "id": "string",
    "sample": "int32",
    "rms": "float64",
    "passes_smact": "bool",
    "reason": "string",
    "valid": "bool",
    "cluster": "int32",
    "fold_seconds": "float64",
    "log_likelihood": "float64",
    "cif": "string",
}
"""Columns of the rows, with their pyarrow types. rms: normalised, null for no match, whatever the SMACT test
says. fold_seconds: what it took to find the clusters of the block, shared among its samples. cif: what was
compared."""

MAX_PAIRS = 20_000
"""Samples of other entries that METRe may compare; some hundredths of a second each."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A sample of an entry, as it comes from wherever it was written.

    Attributes:
        cif: its text; None where it is no crystal.
        log_likelihood: of the text; NaN where it is not known.
    """

    cif: str | None
    log_likelihood: float = math.nan


def judge(
    entries: Sequence[tuple[int, Known]],
    samples: Sequence[Sequence[Sampled]],
    *,
    workers: int = 1,
    composition_test: bool = True,
    agreement: bool = True,
    on_done: Callable[[int], None] | None = None,
    executor: Executor | None = None,
) -> list[dict[str, Any]]:
    """Judge the samples of some entries.

    Args:
        entries: their numbers in the benchmark, and what is known of them.
        samples: for each entry, in the order in which they were written.
        workers: processes at a time.
        composition_test: whether to ask for the SMACT test too.
        agreement: whether to fold equal samples into clusters, from which one answer is chosen.
        on_done: as for `csp.evaluate`.
        executor: where to work; None opens processes for this call.

    Returns:
        A row a sample, with COLUMNS.

    Raises:
        CrystallmError: SMACT is not installed, or no worker could be started.
    """
    truths = [known.structure for _, known in entries]
    found = csp.distances(
        truths,
        [[sample.cif for sample in row] for row in samples],
        workers=workers,
        composition_test=composition_test,
        on_done=on_done,
        executor=executor,
    )
    texts = [sample.cif for row in samples for sample in row if sample.cif is not None]
    verdicts = iter(checks.check_many(texts, workers=workers, what="auto", executor=executor))
    valid = [[sample.cif is not None and next(verdicts).valid for sample in row] for row in samples]
    started = time.monotonic()
    clusters: Sequence[Sequence[int | None]] = [[None] * len(row) for row in samples]
    seconds = None
    if agreement:
        clusters = duplicates.cluster_duplicates(
            [[_structure(sample) for sample in row] for row in samples],
            workers=workers,
            executor=executor,
        )
        seconds = (time.monotonic() - started) / max(1, sum(map(len, samples)))
    return [
        {
            "entry": number,
            "id": known.id,
            "sample": j,
            "rms": found[i][j].rms,
            "passes_smact": found[i][j].passes_smact,
            "reason": found[i][j].reason,
            "valid": valid[i][j],
            "cluster": clusters[i][j],
            "fold_seconds": seconds,
            "log_likelihood": None if math.isnan(sample.log_likelihood) else sample.log_likelihood,
            "cif": sample.cif,
        }
        for i, ((number, known), row) in enumerate(zip(entries, samples, strict=True))
        for j, sample in enumerate(row)
    ]


def _structure(sample: Sampled) -> Structure | None:
    if sample.cif is None:
        return None
    try:
        return structure_reader.read_structure(sample.cif)
    except CrystallmError:
        return None


def tabulate(
    truths: Sequence[Known],
    rows: Sequence[Mapping[str, Any]],
    n: Sequence[int],
    *,
    composition_test: bool = True,
    workers: int = 1,
    on_done: Callable[[int], None] | None = None,
    executor: Executor | None = None,
) -> list[metrics.Line]:
    """The table of a benchmark.

    Args:
        truths: all entries: the denominator.
        rows: of `judge`, of all entries.
        n: numbers of samples.
        composition_test: whether the rows hold the SMACT test's verdict.
        workers: processes at a time, for METRe.
        on_done: called after each comparison of METRe.
        executor: where METRe compares; None: processes of this machine.

    Returns:
        Lines: as the paper, all samples, valid ones; one answer out of the largest n by agreement and by
        likelihood; METRe with cRMSE.
    """
    by_entry: list[list[Mapping[str, Any]]] = [[] for _ in truths]
    for row in rows:
        by_entry[row["entry"]].append(row)
    plain = [[row["rms"] for row in found] for found in by_entry]
    paper = [[row["rms"] if row["passes_smact"] else None for row in found] for found in by_entry]
    valid = [[row["rms"] if row["valid"] else None for row in found] for found in by_entry]
    lines = []
    if composition_test:
        lines += [metrics.line("as the paper", k, metrics.best_of(paper, k)) for k in n]
    lines += [metrics.line("all samples", k, metrics.best_of(plain, k)) for k in n]
    lines += [metrics.line("valid samples", k, metrics.best_of(valid, k)) for k in n]
    most = max(n)
    if most > 1 and any(row["fold_seconds"] is not None for row in rows):
        lines += _chosen(by_entry, most)
    lines += _with_polymorphs(truths, by_entry, plain, n, workers=workers, on_done=on_done, executor=executor)
    return lines


def growth(
    n_entries: int, rows: Sequence[Mapping[str, Any]], most: int
) -> dict[str, list[tuple[float, float]]]:
    """How match rates (%) grow with the number of samples, as points by name of what counts.

    Args:
        n_entries: all entries: the denominator.
        rows: of `judge`, of all entries.
        most: samples an entry.
    """
    counts = {"as the paper": "passes_smact", "valid samples": "valid"}
    numbers = [k for k in (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 200, 500, 1000) if k < most] + [most]
    curves: dict[str, list[tuple[float, float]]] = {}
    for name, column in counts.items():
        rms: list[list[float | None]] = [[] for _ in range(n_entries)]
        for row in rows:
            rms[row["entry"]].append(row["rms"] if row[column] else None)
        found = [(k, sum(r is not None for r in metrics.best_of(rms, k))) for k in numbers]
        curves[name] = [(float(k), 100 * matched / n_entries) for k, matched in found]
    return curves


def _chosen(by_entry: Sequence[Sequence[Mapping[str, Any]]], n: int) -> list[metrics.Line]:
    """One answer from n samples, chosen without the truth; valid samples come first."""
    seconds = sum(row["fold_seconds"] or 0 for found in by_entry for row in found) / len(by_entry)
    likely = any(row["log_likelihood"] is not None for found in by_entry for row in found)
    lines = []
    for by in ("agreement", "likelihood") if likely else ("agreement",):
        best: list[float | None] = []
        for found in by_entry:
            ranks = ranking.rank_samples(
                [row["cluster"] for row in found[:n]],
                [math.nan if (value := row["log_likelihood"]) is None else value for row in found[:n]],
                [bool(row["valid"]) for row in found[:n]],
                by,
            )
            best.append(found[ranks.index(1)]["rms"] if 1 in ranks else None)
        note = f"folding took {seconds:.2f} s an entry" if by == "agreement" else ""
        lines.append(metrics.line(f"one of {n}, by {by}", 1, best, note=note))
    return lines


def _with_polymorphs(
    truths: Sequence[Known],
    by_entry: Sequence[Sequence[Mapping[str, Any]]],
    plain: Sequence[Sequence[float | None]],
    n: Sequence[int],
    *,
    workers: int,
    on_done: Callable[[int], None] | None,
    executor: Executor | None,
) -> list[metrics.Line]:
    """METRe and cRMSE, for those n that the bound on comparisons allows."""
    groups: dict[tuple[str, int], list[int]] = defaultdict(list)
    for i, known in enumerate(truths):
        # Structures match with one formula and as many atoms in their primitive cells.
        primitive = known.structure.get_primitive_structure()
        groups[primitive.composition.reduced_formula, len(primitive)].append(i)
    pairs = [(i, j) for group in groups.values() for i in group for j in group if i != j]
    allowed = [k for k in n if sum(len(by_entry[j][:k]) for _, j in pairs) <= MAX_PAIRS]
    if not allowed:
        return []
    most = max(allowed)
    found = csp.distances(
        [truths[i].structure for i, _ in pairs],
        [[row["cif"] for row in by_entry[j][:most]] for _, j in pairs],
        workers=workers,
        composition_test=False,
        on_done=on_done,
        executor=executor,
    )
    others = {pair: [d.rms for d in row] for pair, row in zip(pairs, found, strict=True)}
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
    """A line of a benchmark as text, under LINES."""

    def error(value: float) -> str:
        return "-" if math.isnan(value) else f"{value:.4f}"

    rates = " to ".join(f"{100 * x:.1f}" for x in line.match_interval)
    errors = "-" if math.isnan(line.rmse) else " to ".join(error(x) for x in line.rmse_interval)
    return line.name, str(line.n), f"{100 * line.match_rate:.2f}", rates, error(line.rmse), errors, line.note
