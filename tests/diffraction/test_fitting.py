"""Fits of candidates, as tasks of worker processes."""

from __future__ import annotations

import json

import pytest

import powder_patterns
from crystallm.diffraction import fitting
from crystallm.diffraction.pattern import prepare
from crystallm.diffraction.radiation import Radiation, radiation_of

CU = radiation_of("CuKa")


def test_records_come_back():
    pattern = prepare(powder_patterns.measured(powder_patterns.rutile()))
    back = fitting.pattern_of(json.loads(json.dumps(fitting.pattern_record(pattern))))
    assert back.two_theta == pytest.approx(pattern.two_theta)
    assert back.peaks == pattern.peaks
    crystal = fitting.crystal_of(json.loads(json.dumps(fitting.crystal_record(powder_patterns.quartz()))))
    assert crystal.structure() == powder_patterns.quartz().structure()
    assert Radiation(**json.loads(json.dumps(fitting.radiation_record(CU)))) == CU


def test_a_candidate_is_fitted_in_two_steps():
    crystal = powder_patterns.rutile()
    shared = {
        "pattern": fitting.pattern_record(prepare(powder_patterns.measured(crystal))),
        "radiation": fitting.radiation_record(CU),
    }
    wrong = crystal.with_values(cell=crystal.cell * [1.03, 0.98], coordinates=crystal.coordinates + 0.02)
    cell = fitting.fit_cell({**shared, "crystal": fitting.crystal_record(wrong), "seed": 0})
    whole = fitting.fit_coordinates({**shared, "fit": cell})
    assert whole["rwp"] < cell["rwp"] < 0.6
    assert whole["rwp"] < 0.15
    assert whole["penalty"] > cell["penalty"] >= 1
    assert fitting.crystal_of(whole["crystal"]).cell == pytest.approx(crystal.cell, rel=5e-4)
    json.dumps(whole)
