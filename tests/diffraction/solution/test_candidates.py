"""Patterns and candidates that options name."""

from __future__ import annotations

import pytest

import known_crystals
import powder_patterns
from crystallm.diffraction.options import PatternOptions, SolveOptions, SolveReferenceOptions
from crystallm.diffraction.pattern import PowderPattern
from crystallm.diffraction.solution import candidates
from crystallm.errors import InputError
from crystallm.generation.request import SamplingOptions


@pytest.mark.parametrize(("formula", "message"), [("", "no formula"), ("TiO2,Tx", "Tx"), ("NaCl,,KCl", None)])
def test_formulas_are_checked(formula, message):
    if message is None:
        assert list(candidates.requests_of(SolveOptions(formula=formula))) == ["NaCl", "KCl"]
        return
    with pytest.raises(InputError, match=message):
        candidates.requests_of(SolveOptions(formula=formula))


def test_relatives_come_first_and_samples_fill_the_rest(tmp_path, parrot):
    path = tmp_path / "library.parquet"
    known_crystals.library().write(path)
    request = candidates.requests_of(SolveOptions(formula="TiO2"))["TiO2"]
    known = SolveReferenceOptions(references=(path,))
    sampling = SamplingOptions(model=str(parrot), device="cpu")
    found = list(candidates.candidates_of(request, sampling, known, 6))
    relatives = [crystal.source.relative is not None for crystal in found]
    assert len(found) == 6
    assert relatives == sorted(relatives, reverse=True)
    assert 0 < sum(relatives) <= 5


def test_a_file_must_be_named_and_wavelengths_known(tmp_path):
    with pytest.raises(InputError, match="no pattern: name its file"):
        candidates.open_pattern(PatternOptions())
    with pytest.raises(InputError, match="wavelength"):
        candidates.open_pattern(PatternOptions(pattern=tmp_path / "a.xy", wavelength="CuKb"))


@pytest.mark.parametrize(
    ("wavelength", "name"), [(None, "CuKa"), (1.5418, "CuKa"), (1.54056, "CuKa"), (1.0, "1 Å")]
)
def test_the_wavelength_of_a_file_counts(monkeypatch, wavelength, name):
    pattern = powder_patterns.measured(powder_patterns.rutile())
    found = PowderPattern(pattern.two_theta, pattern.intensity, wavelength=wavelength)
    monkeypatch.setattr(candidates, "read_pattern", lambda *_: found)
    measured, radiation = candidates.open_pattern(PatternOptions(pattern="a.xy", two_theta_max=50.0))
    assert radiation.name == name
    assert measured.two_theta[-1] <= 50
