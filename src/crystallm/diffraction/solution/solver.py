"""Fits of candidates to one pattern, on worker processes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from crystallm.diffraction import fitting
from crystallm.diffraction.likeness import Likeness, likeness
from crystallm.diffraction.pattern import PowderPattern, prepare
from crystallm.diffraction.powder_model import PowderCrystal
from crystallm.diffraction.profile import ProfileParameters
from crystallm.diffraction.radiation import TUBES, Radiation, radiation_of
from crystallm.diffraction.refinement import Fit, Refinement
from crystallm.diffraction.solution.phases import FittedPhase, Phase, mass_shares, without
from crystallm.errors import CrystallmError, TextError
from crystallm.execution.mapping import run_tasks
from crystallm.execution.tasks import Failure, Limits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from crystallm.crystals.crystal import Crystal

REFINED = 3
"""Candidates of a block whose coordinates are refined."""
PROMISING = 0.65
"""Largest Rwp of a cell whose coordinates are refined."""
LIMITS = Limits(60.0)
"""Of one fit."""
_HOMES = {"fit_cell": "fitting", "fit_coordinates": "fitting", "fit_phases": "solution.phases"}
"""Module of each function of worker processes."""
DIFFERENT, MUCH_BETTER = 0.02, 0.5
"""Another wavelength is proposed if it differs by this share, and lowers Rwp to this share."""


@dataclass(frozen=True, eq=False)
class Answer:
    """A crystal that was fitted to a pattern.

    Attributes:
        formula: as requested.
        crystal: the candidate, as it was generated.
        refined: the same, with its parameters refined.
        fit: of `refined`; `calculated` is with the other phases.
        likeness: of the measured and the calculated pattern.
        score: by which answers are ranked, the smallest first.
        phases: known ones that the sample has beside the crystal.
    """

    formula: str
    crystal: Crystal
    refined: PowderCrystal
    fit: Fit
    likeness: Likeness
    score: float
    phases: tuple[FittedPhase, ...] = ()

    @property
    def structure(self) -> Any:
        """The refined conventional cell, a pymatgen Structure."""
        return self.refined.structure()

    @property
    def cif(self) -> str:
        """A CIF of the refined crystal with all operators of its group."""
        return self.refined.cif()


class Solver:
    """Fits candidates to one pattern.

    Args:
        pattern: measured.
        radiation: of the pattern.
        phases: known ones that the sample may have beside the crystal.
        executor: where candidates are fitted; None: one process.
        workers: processes, without an executor.

    Raises:
        CrystallmError: the pattern has no peak.
    """

    def __init__(
        self,
        pattern: PowderPattern,
        radiation: Radiation,
        *,
        phases: Sequence[Phase] = (),
        executor: Executor | None = None,
        workers: int | None = None,
    ) -> None:
        self.pattern, self.radiation = prepare(pattern), radiation
        self._phases = phases
        self._executor, self._workers = executor, workers
        self._refinement = Refinement(self.pattern, radiation)
        self._shared = {
            "pattern": fitting.pattern_record(self.pattern),
            "radiation": fitting.radiation_record(radiation),
        }

    def fit(self, formula: str, crystals: Sequence[Crystal], *, seed: int = 0) -> list[Answer]:
        """Return the fits of crystals, those that are promising with refined coordinates, in their order."""
        starts = [_powder_crystal(crystal) for crystal in crystals]
        usable = [i for i, start in enumerate(starts) if start is not None]
        tasks = [{"crystal": fitting.crystal_record(starts[i]), "seed": seed} for i in usable]  # type: ignore[arg-type]
        cells = dict(zip(usable, self._run("fit_cell", tasks), strict=True))
        fits = {i: found for i, found in cells.items() if not isinstance(found, Failure)}
        promising = sorted(
            (i for i in fits if fits[i]["rwp"] <= PROMISING), key=lambda i: float(fits[i]["rwp"])
        )[:REFINED]
        refined = self._run("fit_coordinates", [{"fit": fits[i]} for i in promising])
        for i, found in zip(promising, refined, strict=True):
            if not isinstance(found, Failure) and found["rwp"] < fits[i]["rwp"]:
                fits[i] = found
        self._add_phases(fits, promising)
        return [self._answer(formula, crystals[i], fits[i]) for i in sorted(fits)]

    def _add_phases(self, fits: dict[int, dict[str, Any]], numbers: Sequence[int]) -> None:
        """Refine some fits together with the known phases."""
        if not self._phases:
            return
        records = [fitting.crystal_record(phase.crystal) for phase in self._phases]
        tasks = [{"fit": fits[i], "phases": records} for i in numbers]
        found = zip(numbers, self._run("fit_phases", tasks), strict=True)
        fits |= {i: fit for i, fit in found if not isinstance(fit, Failure)}

    def start(self, crystal: Crystal) -> PowderCrystal:
        """Return the parameters of a crystal as it was generated. Raises TextError: it is broken."""
        found = _powder_crystal(crystal)
        if found is None:
            raise TextError("a broken crystal")
        return found

    def other_wavelength(self, crystals: Sequence[Crystal], rwp: float) -> str | None:
        """Return the name of a tube under which one of some crystals fits much better; None if there is none.

        Args:
            rwp: the smallest under the given wavelength.
        """
        others = [radiation_of(f"{symbol}Ka", self.radiation.kind) for symbol in TUBES]
        others = [r for r in others if abs(math.log(r.wavelength / self.radiation.wavelength)) > DIFFERENT]
        tasks = [
            {
                "radiation": fitting.radiation_record(other),
                "crystal": fitting.crystal_record(self.start(crystal)),
                "seed": 0,
            }
            for other in others
            for crystal in crystals
        ]
        names = [other.name for other in others for _ in crystals]
        fits = self._run("fit_cell", tasks)
        good = [
            (float(found["rwp"]), name)
            for found, name in zip(fits, names, strict=True)
            if not isinstance(found, Failure)
        ]
        least, name = min(good, default=(1.0, ""))
        return name if least < MUCH_BETTER * rwp and least < PROMISING else None

    def _run(self, function: str, tasks: Sequence[dict[str, Any]]) -> list[Any]:
        return run_tasks(
            self._executor,
            f"crystallm.diffraction.{_HOMES[function]}:{function}",
            [self._shared | task for task in tasks],
            workers=self._workers,
            limits=LIMITS,
        )

    def _answer(self, formula: str, crystal: Crystal, record: dict[str, Any]) -> Answer:
        beside = record.get("phases", [])
        rest = without(self.pattern, self.radiation, beside)
        refinement = Refinement(rest, self.radiation) if beside else self._refinement
        fit = refinement.run(
            fitting.crystal_of(record["crystal"]),
            ProfileParameters(**record["profile"]),
            displacement=record["displacement"],
            steps=0,
        )
        fit = replace(fit, calculated=fit.calculated + self.pattern.intensity - rest.intensity)
        like = likeness(
            self.pattern, fit.peaks, self.pattern.intensity - fit.calculated, record["n_parameters"]
        )
        phases = tuple(
            FittedPhase(self._phases[found["index"]].name, fitting.crystal_of(found["crystal"]), share)
            for found, share in zip(beside, mass_shares([record, *beside])[1:], strict=True)
        )
        return Answer(formula, crystal, fit.crystal, fit, like, like.rwp * record["penalty"], phases)


def _powder_crystal(crystal: Crystal) -> PowderCrystal | None:
    """Return the parameters of a crystal; None if it is broken."""
    from crystallm.orbits import description, language

    try:
        if crystal.language.has_parameters:  # its ids are those of a description
            return PowderCrystal.of(language.from_ids(crystal.ids))
        return PowderCrystal.of(description.describe(crystal.generated))
    except CrystallmError:
        return None
