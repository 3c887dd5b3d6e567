"""Find the crystal of a powder pattern: candidates, fits, ranks, and whether anything fits.

    candidates   crystals of each formula: known relatives with its elements, then samples of a network
    cell         found and refined for each candidate (see `cell_search`, `refinement`)
    coordinates  refined for those of smallest Rwp
    rank         by Rwp sqrt(n / (n - p)), n the reflections that the pattern keeps apart and p the free
                 parameters of the crystal: a cell of low symmetry with many coordinates fits anything;
                 of those nearly as good, the one with the smallest primitive cell is first
    phases       known ones are refined beside these (see `phases`)
    nothing fits if no crystal is `Likeness.fits` or, with another phase that is not known, `fits_in_part`:
                 answers then are the candidates as they were, in the order of their likelihood

Candidates are fitted in blocks; where a crystal explains all but the noise, the others are not tried.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from crystallm.diffraction.pattern import PowderPattern, PreparedPattern
from crystallm.diffraction.radiation import Radiation, radiation_of
from crystallm.diffraction.solution.candidates import (
    candidates_of,
    default_wavelength,
    open_pattern,
    requests_of,
)
from crystallm.diffraction.solution.phases import Phase, read_phases
from crystallm.diffraction.solution.solver import Answer, Solver
from crystallm.errors import CrystallmError
from crystallm.execution.place import open_place
from crystallm.execution.progress import Progress, no_progress
from crystallm.generation.request import SamplingOptions

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Executor

    from crystallm.diffraction.likeness import Likeness
    from crystallm.diffraction.options import SolveOptions
    from crystallm.diffraction.radiation import Kind
    from crystallm.models.model import Model
    from crystallm.references.options import ReferenceOptions

BLOCK, SMALL_BLOCK = 8, 4
"""Candidates that are fitted before it is looked whether one fits: of a formula, and of one of many."""
ENOUGH = (1.2, 0.06)
"""A crystal explains all but the noise if Rwp is below this times Rexp, or below this."""
GOOD = (0.3, 0.96, 0.05)
"""After `GOOD_AFTER` candidates this is enough: largest Rwp, smallest S, largest share unexplained."""
GOOD_AFTER = 40
COMPARED = 60
"""Best answers that are compared with each other, to leave out equal ones."""
DENSITY = 0.03
"""Relative difference of density above which refined crystals are not equal; to compare them takes longer."""
NEARLY = 1.05
"""Answers of a score up to this times the best one's are nearly as good; the smallest cell is first."""
LIKELY = 3
"""Candidates that are fitted under other wavelengths if nothing fits."""


@dataclass(frozen=True, eq=False)
class Solution:
    """What was found for a pattern.

    Attributes:
        pattern: on its grid.
        radiation: that was used.
        answers: best first. If nothing fits, in the order of likelihood.
        fits: whether the best answer explains the pattern.
        partly: whether it explains all but some peaks, perhaps of another phase.
        n_tried: candidates that were fitted.
        conclusion: one line.
    """

    pattern: PreparedPattern
    radiation: Radiation
    answers: tuple[Answer, ...]
    fits: bool
    n_tried: int
    conclusion: str
    partly: bool = False

    @property
    def refined(self) -> bool:
        """Whether the answers are refined crystals; else they are the candidates as they were."""
        return self.fits or self.partly


def enough(like: Likeness, n_tried: int) -> bool:
    """Return whether no further candidates need be tried."""
    times, least = ENOUGH
    if like.fits and like.rwp <= max(times * like.expected, least):
        return True
    rwp, similarity, rest = GOOD
    good = like.rwp <= rwp and like.similarity >= similarity and like.share_unexplained <= rest
    return good and n_tried >= GOOD_AFTER


def solve_pattern(
    pattern: PowderPattern,
    radiation: Radiation,
    options: SolveOptions,
    sampling: SamplingOptions,
    known: ReferenceOptions,
    *,
    executor: Executor | None = None,
    workers: int | None = None,
    progress: Progress = no_progress,
    phases: Sequence[Phase] = (),
    model: Model | None = None,
) -> Solution:
    """Find the crystal of a pattern; see the module.

    Args:
        phases: that are known already, beside those of the options.
        model: that samples candidates; None: the one of the options is loaded.

    Raises:
        InputError: no formula, or an impossible request.
        CrystallmError: no peak in the pattern, no candidate, or a library or model that cannot be loaded.
    """
    requests = requests_of(options, known)
    phases = [*phases, *read_phases(options.phases)]
    solver = Solver(pattern, radiation, phases=phases, executor=executor, workers=workers)
    found: list[Answer] = []
    done, most, size = 0, options.candidates, BLOCK
    if options.elements:
        most, size = max(SMALL_BLOCK, most // len(requests)), SMALL_BLOCK
    with progress("fitting candidates", most * len(requests)) as advance:
        for formula, request in requests.items():
            n_tried = 0
            crystals = candidates_of(request, sampling, known, most, executor=executor, model=model)
            while block := list(itertools.islice(crystals, size)):
                fitted = solver.fit(formula, block, seed=sampling.seed)
                found += fitted
                n_tried += len(block)
                advance(done + n_tried)
                of_formula = [answer.likeness for answer in found if answer.formula == formula]
                if options.stop_early and any(enough(like, n_tried) for like in of_formula):
                    break
            done += n_tried
    if not found:
        raise CrystallmError(
            f"{', '.join(requests)}: no candidate could be made; --from both samples them too"
        )
    return _solution(solver, found, list(requests), options.answers)


def _solution(solver: Solver, found: list[Answer], formulas: list[str], n: int) -> Solution:
    ranked = rank(found)
    best = ranked[0]
    fits, partly = best.likeness.fits, best.likeness.fits_in_part
    if not fits and not partly:
        text = _nothing_fits(solver, best, found)
        likely = tuple(replace(answer, refined=solver.start(answer.crystal)) for answer in found[:n])
        return Solution(
            solver.pattern, solver.radiation, likely, fits=False, n_tried=len(found), conclusion=text
        )
    answers = tuple(itertools.islice(_distinct(ranked), n))
    others = [answer for answer in ranked if answer.formula != best.formula and answer.likeness.fits]
    text = " ".join([*([best.formula] if len(formulas) > 1 else []), _how_well(answers[0])])
    if others and others[0].score <= 1.1 * best.score:
        text += f"; {others[0].formula} fits nearly as well"
    return Solution(
        solver.pattern,
        solver.radiation,
        answers,
        fits=fits,
        n_tried=len(found),
        conclusion=text,
        partly=not fits,
    )


def rank(found: Sequence[Answer]) -> list[Answer]:
    """Return answers in the order of their scores, of nearly as good ones that of the smallest cell first.

    A larger cell holds its smaller one with small shifts of atoms, which fit as well and mean nothing.
    """
    ranked = sorted(found, key=lambda answer: answer.score)
    best = ranked[0]
    equal = [a for a in ranked if a.formula == best.formula and a.score <= NEARLY * best.score]
    first = min(equal, key=lambda answer: (answer.refined.n_primitive, answer.score))
    return [first, *(answer for answer in ranked if answer is not first)]


def _how_well(answer: Answer) -> str:
    """Return how well an answer fits, and what is beside it."""
    like = answer.likeness
    text = "fits" if like.fits else "fits in part"
    text += f": Rwp {like.rwp:.1%}, {like.expected:.1%} expected from noise"
    if answer.phases:
        text += ", with " + ", ".join(f"{phase.share:.0%} {phase.name}" for phase in answer.phases)
    if not like.fits:
        text += (
            f"; {like.share_unexplained:.0%} of the peaks stay unexplained, perhaps those of another phase"
        )
    return text


def _distinct(ranked: Sequence[Answer]) -> Iterator[Answer]:
    """Yield one answer of each cluster of equal ones: of those nearly as good as the best, the simplest."""
    from crystallm.structures.comparison import matcher

    clusters: list[list[Answer]] = []
    for answer in ranked[:COMPARED]:
        structure = answer.structure
        near = [c for c in clusters if abs(c[0].refined.density / answer.refined.density - 1) < DENSITY]
        equal = next((c for c in near if matcher().fit(structure, c[0].structure)), None)
        if equal is None:
            clusters.append([answer])
        elif answer.score <= NEARLY * equal[0].score:
            equal.append(answer)
    for cluster in clusters:
        yield min(cluster, key=lambda answer: (answer.refined.n_free, answer.score))


def _nothing_fits(solver: Solver, best: Answer, found: Sequence[Answer]) -> str:
    """Return the line that nothing fits, with the wavelength under which something would."""
    like = best.likeness
    text = (
        f"nothing fits: the best of {len(found)} candidates leaves Rwp {like.rwp:.0%} and "
        f"{like.share_unexplained:.0%} of the peaks unexplained"
    )
    other = solver.other_wavelength([answer.crystal for answer in found[:LIKELY]], best.likeness.rwp)
    if other is not None:
        name = solver.radiation.name
        return f"{text}; with --wavelength {other} it is much better: is the wavelength {name} right?"
    return f"{text}; another formula, a mixture, or a structure unlike all known ones?"


def solve(
    pattern: str | os.PathLike[str] | PowderPattern,
    formula: str | None = None,
    *,
    elements: str | None = None,
    phases: Sequence[str | os.PathLike[str]] = (),
    z: int | Literal["auto"] | None = None,
    space_group: int | str | None = None,
    wavelength: str | float | None = None,
    radiation: Kind = "xray",
    candidates: int = 150,
    answers: int = 5,
    sampling: SamplingOptions | None = None,
    known: ReferenceOptions | None = None,
    workers: int = 1,
) -> Solution:
    """Find the crystal of a measured powder pattern.

    Args:
        pattern: a file, see `diffraction.readers`, or a pattern.
        formula: such as `TiO2`, or several, `TiO2,Ti2O3`, of which the answer says which one fits.
        elements: such as `Ti,O`, in place of a formula: formulas of known crystals are tried.
        phases: CIF files of known phases, such as impurities, that the sample may have beside the crystal.
        z: formula units in the conventional cell; None: open.
        space_group: number or symbol; None: open.
        wavelength: `CuKa` (both lines), `CuKa1`, likewise MoKa and others, or Å; None: that of the file, else
            CuKa.
        radiation: `xray` or `neutron`.
        candidates: crystals of each formula that are tried, at most.
        answers: that are returned, at most.
        sampling: of the network that makes candidates.
        known: whether candidates are sampled, made of known crystals, or both; by default both.
        workers: processes that fit candidates.

    Raises:
        InputError: no pattern in the file, an impossible formula, an unknown wavelength.
        CrystallmError: no peak in the pattern, or no candidate.
    """
    from crystallm.diffraction.options import PatternOptions, SolveOptions, SolveReferenceOptions

    name = None if wavelength is None else str(wavelength)
    if isinstance(pattern, PowderPattern):
        measured, radiated = pattern, radiation_of(name or default_wavelength(pattern), radiation)
    else:
        measured, radiated = open_pattern(
            PatternOptions.build({"pattern": pattern, "wavelength": name, "radiation": radiation})
        )
    group = None if space_group is None else str(space_group)
    options = SolveOptions.build(
        {
            "formula": formula,
            "elements": elements,
            "phases": tuple(phases),
            "z": z,
            "space_group": group,
            "candidates": candidates,
            "answers": answers,
        }
    )
    with open_place(None, workers) as pool:
        return solve_pattern(
            measured,
            radiated,
            options,
            sampling or SamplingOptions(),
            known or SolveReferenceOptions(),
            executor=pool,
        )
