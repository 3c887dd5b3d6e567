"""Solve a powder pattern, and write its answers: CIFs, a table, curves, charts and JSON."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crystallm.crystallography import formula as formulas
from crystallm.diffraction.likeness import spacing
from crystallm.diffraction.solution.candidates import open_pattern, requests_of
from crystallm.diffraction.solution.phases import read_phases
from crystallm.diffraction.solution.solve import Solution, solve_pattern
from crystallm.execution.place import open_place
from crystallm.execution.progress import Progress, no_progress
from crystallm.storage import files

if TYPE_CHECKING:
    from pathlib import Path

    from crystallm.diffraction.options import PatternOptions, SolveOptions
    from crystallm.diffraction.solution.phases import FittedPhase
    from crystallm.diffraction.solution.solver import Answer
    from crystallm.generation.request import SamplingOptions
    from crystallm.references.options import ReferenceOptions

SUMMARY, TABLE = "solution.json", "answers.csv"
COLUMNS = (
    "rank", "formula", "space_group", "space_group_number", "a", "b", "c", "alpha", "beta", "gamma", "rwp",
    "rwp_expected", "similarity", "share_unexplained", "score", "zero_shift", "width_at_40", "displacement",
    "log_likelihood", "relative", "relative_formula", "file",
)  # fmt: skip
"""Columns of the table: Å, degrees, Å^2; Rwp and others as in `diffraction.likeness`."""
FIT = (
    "rwp", "rwp_expected", "similarity", "share_unexplained", "score", "zero_shift", "width_at_40",
    "displacement", "unexplained", "phases", "refined",
)  # fmt: skip
"""What a row has of the fit of an answer."""


class SolveResult(NamedTuple):
    """Rows of the answers, best first, and the summary as in solution.json."""

    rows: list[dict[str, Any]]
    summary: dict[str, Any]


def run(
    pattern_options: PatternOptions,
    options: SolveOptions,
    sampling: SamplingOptions,
    known: ReferenceOptions,
    out: Path | None,
    *,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> SolveResult:
    """Solve a pattern and write the answers.

    Raises:
        InputError: no pattern in the file, an impossible formula, an unknown wavelength.
        CrystallmError: no peak, no candidate, or a file that cannot be read or written.
    """
    pattern, radiation = open_pattern(pattern_options)
    requests_of(options, known)
    read_phases(options.phases)
    if out is not None:
        files.check_place(out)
    with open_place(None, workers or os.cpu_count() or 1) as pool:
        solution = solve_pattern(
            pattern, radiation, options, sampling, known, executor=pool, progress=progress
        )
    rows = [row_of(solution, rank, answer) for rank, answer in enumerate(solution.answers, 1)]
    summary = _summary(solution, pattern.name)
    if out is not None:
        _write(out, solution, rows, summary)
    return SolveResult(rows, summary)


def row_of(solution: Solution, rank: int, answer: Answer) -> dict[str, Any]:
    """Return what is reported of an answer."""
    crystal, like, fit = answer.refined, answer.likeness, answer.fit
    source = answer.crystal.source
    relative = None if source is None else source.relative
    counts: dict[str, int] = {}
    for symbol, points in crystal.points():
        counts[symbol] = counts.get(symbol, 0) + len(points)
    cell = formulas.short(counts)
    names = ("a", "b", "c", "alpha", "beta", "gamma")
    numbers = {name: round(float(value), 5) for name, value in zip(names, crystal.full_cell, strict=True)}
    return {
        "rank": rank,
        "formula": cell,
        "space_group": crystal.group.symbol,
        "space_group_number": crystal.group.number,
        **numbers,
        "rwp": round(like.rwp, 5),
        "rwp_expected": round(like.expected, 5),
        "similarity": round(like.similarity, 5),
        "share_unexplained": round(like.share_unexplained, 5),
        "score": round(answer.score, 5),
        "zero_shift": round(fit.profile.zero, 5),
        "width_at_40": round(float(fit.profile.widths(np.array([40.0]))[0]), 5),
        "displacement": round(fit.displacement, 4),
        "log_likelihood": answer.crystal.log_likelihood,
        "relative": None if relative is None else relative.id,
        "relative_formula": None if relative is None else relative.formula,
        "file": f"{rank:02d}-{cell}-sg{crystal.group.number}",
        "unexplained": _peaks(solution, answer),
        "phases": [_phase(phase) for phase in answer.phases],
        "refined": solution.refined,
        "cif": answer.cif,
    }


def _phase(phase: FittedPhase) -> dict[str, Any]:
    """Return name, share of the mass and cell (Å, degrees) of a phase."""
    cell = [round(float(value), 5) for value in phase.crystal.full_cell]
    return {"name": phase.name, "share": round(phase.share, 4), "cell": cell}


def _peaks(solution: Solution, answer: Answer) -> list[dict[str, float]]:
    """Return the measured peaks that an answer leaves: degrees, Å, height relative to the highest peak."""
    highest = max(peak.height for peak in solution.pattern.peaks)
    return [
        {
            "two_theta": round(peak.two_theta, 3),
            "d": round(spacing(peak.two_theta - answer.fit.profile.zero, solution.radiation.wavelength), 4),
            "height": round(peak.height / highest, 4),
        }
        for peak in answer.likeness.unexplained
    ]


def _summary(solution: Solution, name: str) -> dict[str, Any]:
    pattern = solution.pattern
    return {
        "pattern": name,
        "radiation": solution.radiation.name,
        "wavelengths": list(solution.radiation.wavelengths),
        "two_theta": [float(pattern.two_theta[0]), float(pattern.two_theta[-1])],
        "peaks": len(pattern.peaks),
        "candidates": solution.n_tried,
        "fits": solution.fits,
        "partly": solution.partly,
        "conclusion": solution.conclusion,
    }


def _write(folder: Path, solution: Solution, rows: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    """Write the files of the answers; raises as `storage.files.write_atomically`."""
    for answer, row in zip(solution.answers, rows, strict=True):
        files.write_atomically(folder / "cifs" / f"{row['file']}.cif", row["cif"].encode(), sync=False)
        files.write_atomically(folder / "plots" / f"{row['file']}.png", chart(solution, answer, row))
        files.write_atomically(folder / "curves" / f"{row['file']}.csv", _curves(solution, answer))
    kept = [{name: value for name, value in row.items() if name != "cif"} for row in rows]
    files.write_json(folder / SUMMARY, files.without_nan({**summary, "answers": kept}))
    files.write_atomically(folder / TABLE, _table(rows))


def chart(solution: Solution, answer: Answer, row: dict[str, Any]) -> bytes:
    """Return the chart of an answer, as PNG."""
    from crystallm.diffraction.powder_model import ReflectionSet
    from crystallm.visualization.powder_chart import fitted_pattern

    pattern, fit = solution.pattern, answer.fit
    last = float(pattern.two_theta[-1])
    angles = ReflectionSet(fit.crystal, solution.radiation, last).intensities(fit.crystal).two_theta
    ticks = angles[(angles >= pattern.two_theta[0]) & (angles <= last)] + fit.profile.zero
    title = f"{row['formula']} {row['space_group']}, Rwp {row['rwp']:.1%}, similarity {row['similarity']:.3f}"
    return fitted_pattern(
        pattern.two_theta,
        pattern.intensity,
        fit.calculated,
        title=title,
        reflections=ticks.tolist(),
        unexplained=[peak.two_theta for peak in answer.likeness.unexplained],
    )


def _curves(solution: Solution, answer: Answer) -> bytes:
    """Return the curves of an answer as CSV."""
    pattern, fit = solution.pattern, answer.fit
    table = np.column_stack(
        [
            pattern.two_theta,
            pattern.intensity,
            fit.calculated,
            fit.background,
            pattern.intensity - fit.calculated,
        ]
    )
    text = io.StringIO()
    heads = "two_theta,measured,calculated,background,difference"
    np.savetxt(text, table, fmt="%.6g", delimiter=",", header=heads, comments="")
    return text.getvalue().encode()


def _table(rows: list[dict[str, Any]]) -> bytes:
    import csv

    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
