"""The crystal of a pattern: found, among formulas, or not at all."""

from __future__ import annotations

import numpy as np
import pytest

import crystallm
import known_crystals
import powder_patterns
from crystallm.diffraction.options import SolveOptions, SolveReferenceOptions
from crystallm.diffraction.pattern import PowderPattern
from crystallm.diffraction.radiation import radiation_of
from crystallm.diffraction.solution import candidates, solve
from crystallm.diffraction.solution.solver import Answer
from crystallm.errors import CrystallmError, InputError
from crystallm.execution.pool import Inline
from crystallm.generation.request import SamplingOptions
from crystallm.structures.comparison import matcher

CU = radiation_of("CuKa")


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """Known crystals without those of the formula TiO2."""
    path = tmp_path_factory.mktemp("known") / "library.parquet"
    library, left_out = known_crystals.library().without(formulas={"TiO2"})
    assert left_out
    library.write(path)
    return SolveReferenceOptions(crystals_from="references", references=(path,))


def run(pattern, formula, known, radiation=CU, **options):
    return solve.solve_pattern(
        pattern,
        radiation,
        SolveOptions.build({"formula": formula, **options}),
        SamplingOptions(device="cpu"),
        known,
        executor=Inline(),
    )


def test_rutile_is_found_from_its_relatives(known):
    solution = run(powder_patterns.measured(powder_patterns.rutile()), "TiO2", known)
    best = solution.answers[0]
    assert solution.fits
    assert solution.conclusion.startswith("fits: Rwp")
    assert best.crystal.source.relative.formula in {"SnO2", "MgF2"}
    assert matcher().get_rms_dist(best.structure, powder_patterns.rutile().structure())[0] < 0.005
    assert best.refined.cell == pytest.approx([4.587, 2.954], rel=5e-4)
    assert best.likeness.rwp < 1.3 * best.likeness.expected
    assert "_symmetry_Int_Tables_number" in best.cif


def test_the_formula_that_fits_is_named(known):
    pattern = powder_patterns.measured(powder_patterns.rutile())
    solution = run(pattern, "SnO2, TiO2", known)
    assert solution.conclusion.startswith("TiO2 fits")
    assert solution.answers[0].formula == "TiO2"


def test_the_formula_is_one_of_known_crystals_with_these_elements(tmp_path):
    library = tmp_path / "library.parquet"
    known_crystals.library().write(library)
    known = SolveReferenceOptions(crystals_from="references", references=(library,))
    pattern = powder_patterns.measured(powder_patterns.rutile())
    solution = run(pattern, None, known, elements="Sr,Ti,O", candidates=8)
    assert solution.conclusion.startswith("TiO2 fits")
    with pytest.raises(InputError, match="no known crystal has these elements alone"):
        run(pattern, None, known, elements="Pd-Xe")
    with pytest.raises(InputError, match="give one or the other"):
        run(pattern, "TiO2", known, elements="Ti-O")


@pytest.mark.parametrize("height", [0.1, 0.4])
def test_a_second_phase_leaves_peaks_unexplained_until_it_is_named(known, tmp_path, height):
    salt = powder_patterns.crystal(225, "Na 4a Cl 4b", [5.64], [])
    main = powder_patterns.measured(powder_patterns.rutile())
    beside = powder_patterns.measured(salt, counts=1e4 * height, background=0.0)
    pattern = PowderPattern(main.two_theta, main.intensity + beside.intensity)
    solution = run(pattern, "TiO2", known)
    best = solution.answers[0]
    assert solution.refined
    assert solution.partly == (height == 0.4)
    assert best.refined.cell == pytest.approx([4.587, 2.954], rel=5e-4)
    strongest = best.likeness.unexplained[0]
    assert strongest.two_theta == pytest.approx(31.73, abs=0.1)  # 200 of NaCl
    path = tmp_path / "NaCl.cif"
    path.write_text(salt.cif(), encoding="utf-8")
    both = run(pattern, "TiO2", known, phases=(path,))
    assert both.fits
    assert "% NaCl" in both.conclusion
    assert both.answers[0].phases[0].crystal.cell == pytest.approx([5.64], rel=5e-4)
    assert both.answers[0].likeness.share_unexplained < 0.02


def test_a_strained_crystal_is_found(known):
    rutile = powder_patterns.rutile()
    strained = rutile.with_values(cell=rutile.cell * [1.005, 0.995])
    solution = run(powder_patterns.measured(strained), "TiO2", known)
    assert solution.fits
    assert solution.answers[0].refined.cell == pytest.approx(strained.cell, rel=5e-4)


def test_nothing_fits_another_crystal(known):
    solution = run(powder_patterns.measured(powder_patterns.quartz()), "TiO2", known)
    assert not solution.fits
    assert solution.conclusion.startswith("nothing fits")
    # The candidates as they were.
    first = next(
        candidates.candidates_of(
            candidates.requests_of(SolveOptions(formula="TiO2"))["TiO2"], SamplingOptions(), known, 1
        )
    )
    assert solution.answers[0].structure.lattice.abc == pytest.approx(first.generated.lattice.abc)


@pytest.mark.parametrize(
    ("true", "given"), [("MoKa", "CuKa"), ("CuKa", "0.154056")], ids=["another tube", "nm in place of Å"]
)
def test_a_wrong_wavelength_is_named(known, true, given):
    pattern = powder_patterns.measured(powder_patterns.rutile(), radiation=radiation_of(true))
    solution = run(pattern, "TiO2", known, radiation_of(given))
    assert not solution.fits, solution.answers[0].crystal.generated.lattice
    assert f"with --wavelength {true}" in solution.conclusion


def test_the_python_function_takes_arrays_and_files(known, tmp_path, inline):
    pattern = powder_patterns.measured(powder_patterns.rutile())
    path = tmp_path / "rutile.xy"
    np.savetxt(path, np.column_stack([pattern.two_theta, pattern.intensity]))
    settings = {"known": known, "candidates": 4, "answers": 1}
    from_file = crystallm.solve(path, "TiO2", **settings)
    from_arrays = crystallm.solve(PowderPattern(pattern.two_theta, pattern.intensity), "TiO2", **settings)
    assert inline
    assert [len(s.answers) for s in (from_file, from_arrays)] == [1, 1]
    assert from_file.answers[0].score == pytest.approx(from_arrays.answers[0].score, rel=1e-3)


def test_of_nearly_equal_answers_the_smallest_cell_is_first():
    small = powder_patterns.rutile()
    large = powder_patterns.crystal(1, "Ti 1a " * 4 + "O 1a " * 8, [4.6, 4.6, 5.9, 90, 90, 90], [0.1] * 36)
    face = powder_patterns.crystal(225, "Na 4a Cl 4b", [5.64], [])
    assert [crystal.n_primitive for crystal in (small, large, face)] == [6, 12, 2]

    def answer(crystal, score, formula="TiO2"):
        return Answer(formula, None, crystal, None, None, score)

    best, near, far, other = (
        answer(large, 0.200),
        answer(small, 0.209),
        answer(small, 0.211),
        answer(face, 0.201, "NaCl"),
    )
    assert solve.rank([far, best, near, other]) == [near, best, other, far]
    assert solve.rank([far, best]) == [best, far]


def test_no_candidate_is_an_error(known):
    with pytest.raises(CrystallmError, match="no candidate"):
        run(powder_patterns.measured(powder_patterns.rutile()), "Ti3O5", known)
