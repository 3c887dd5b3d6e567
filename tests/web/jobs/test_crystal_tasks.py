"""Summaries, patterns and files of crystals, as worker processes compute them."""

from __future__ import annotations

import json

import pytest

from crystallm.structures import conversion
from crystallm.web.jobs import crystal_tasks


@pytest.fixture(scope="module")
def rocksalt(textbook_structures):
    return textbook_structures["rocksalt"]


def test_an_uploaded_cif_has_cell_orbits_and_checks(rocksalt):
    task = {"text": rocksalt.to(fmt="cif"), "read_as": "auto"}
    summary = crystal_tasks.uploaded_summary(task)
    assert summary["formula"] == "Na4Cl4"
    assert summary["z"] == 4
    assert summary["volume"] == pytest.approx(5.64**3, rel=1e-3)
    assert [orbit["wyckoff"] for orbit in summary["orbits"]] == ["4a", "4b"]
    assert summary["valid"]
    assert all(summary["checks"].values())
    json.dumps(summary, allow_nan=False)
    unchecked = crystal_tasks.uploaded_summary({**task, "read_as": None})
    assert "valid" not in unchecked
    assert unchecked["cif"] == summary["cif"]


def test_a_broken_upload_says_why():
    summary = crystal_tasks.uploaded_summary({"text": "data_nothing\n", "read_as": "auto"})
    assert not summary["valid"]
    assert summary["broken"]


def test_a_pattern_obeys_bragg(rocksalt):
    import math

    pattern = crystal_tasks.powder_pattern({"structure": conversion.to_json(rocksalt)})
    for peak in pattern["peaks"]:
        wavelength = 2 * peak["d"] * math.sin(math.radians(peak["two_theta"] / 2))
        assert wavelength == pytest.approx(pattern["wavelength"], abs=1e-4)
    assert max(peak["intensity"] for peak in pattern["peaks"]) == pytest.approx(100)


def test_files_hold_the_energy_of_the_cell(rocksalt):
    crystal = {"cif": "data_x", "structure": conversion.to_json(rocksalt), "formula": "NaCl", "energy": -3.5}
    without = {**crystal, "energy": None}
    first, second = crystal_tasks.crystal_files({"crystals": [crystal, without]})
    assert set(first) == set(crystal_tasks.FORMATS)
    assert f"energy={-3.5 * len(rocksalt):g}" in first["extxyz"]
    assert "energy=" not in second["extxyz"]
    assert first["poscar"].splitlines()[0] == "NaCl"


def test_tokens_have_origin_and_probability():
    task = {
        "ids": [0, 1, 2, 3],
        "n_requested": 1,
        "n_prompt": 2,
        "forced": [1, 0],
        "log_probs": [0.0, -0.6931471805599453],
    }
    assert crystal_tasks._tokens(task, ("a", "b", "c", "d")) == [
        ["a", crystal_tasks.REQUESTED, None],
        ["b", crystal_tasks.CHOSEN, None],
        ["c", crystal_tasks.FORCED, 1.0],
        ["d", crystal_tasks.SAMPLED, 0.5],
    ]


@pytest.mark.parametrize(("value", "expected"), [(None, None), (float("nan"), None), (1 / 3, 0.333333)])
def test_numbers_are_rounded_and_nan_is_null(value, expected):
    assert crystal_tasks._finite(value) == expected
