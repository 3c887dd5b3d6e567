"""Probabilities of candidates: those of the network that was fitted, and what must always hold."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from crystallm.references.candidates import Candidates, Filter, find_candidates
from crystallm.references.library import Library
from crystallm.references.scorer import WARMTH, default_scorer, load_scorer
from known_crystals import library, member

SCRIPT = Path(__file__).parents[2] / "scripts" / "fit_scorer.py"


@pytest.fixture(scope="module")
def script():
    """The script that fits the network."""
    spec = importlib.util.spec_from_file_location("fit_scorer", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["fit_scorer"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["fit_scorer"]


@pytest.mark.parametrize("counts", [{"Be": 1, "O": 1}, {"Ca": 1, "Ti": 1, "O": 3}, {"Ge": 1}])
def test_the_network_is_the_one_that_is_fitted(counts, script, tmp_path) -> None:
    torch.manual_seed(3)
    network = script.Network(16).eval()
    for weights in network.parameters():  # the last layers start at zero
        weights.data += 0.1 * torch.randn_like(weights)
    script.write(network, tmp_path / "w.safetensors")
    found = find_candidates(library(), counts, Filter())
    asked = script.Question(found, np.ones(len(found)), 1, np.zeros(len(found), bool))
    with torch.no_grad():
        expected = torch.softmax(network(script.stacked([asked], [False])), 1)[0, :-1]
    got = load_scorer(tmp_path / "w.safetensors").probabilities(found)
    np.testing.assert_allclose(got, expected.numpy(), atol=3e-3)  # weights are rounded to half precision


@pytest.mark.parametrize("counts", [{"Be": 1, "O": 1}, {"Ti": 1, "O": 2}, {"Ca": 1, "Ti": 1, "O": 3}])
def test_probabilities_leave_room_for_what_no_relative_has(counts) -> None:
    found = default_scorer().probabilities(find_candidates(library(), counts, Filter()))
    assert (found > 0).all()
    assert found.sum() < 1


def test_nothing_to_score_is_no_error() -> None:
    found = find_candidates(Library.of([]), {"Be": 1, "O": 1}, Filter())
    assert default_scorer().probabilities(found).tolist() == []


def test_near_relatives_are_trusted_more_than_far_ones() -> None:
    def first(symbols: tuple[str, str]) -> float:
        known = Library.of([("one", "lab", member("rocksalt", symbols))])
        return float(
            default_scorer().probabilities(find_candidates(known, {"Rb": 1, "Cl": 1}, Filter())).max()
        )

    assert first(("K", "Cl")) > 2 * first(("Ti", "C"))


POLYMORPHS = [("rocksalt", ("Zn", "O")), ("wurtzite", ("Zn", "O")), ("wurtzite", ("Be", "O"))]


def polymorphs(*energies: float) -> Candidates:
    known = Library.of(
        [(f"{name}-{symbols[0]}", "lab", member(name, symbols)) for name, symbols in POLYMORPHS]
    )
    of_name = {
        f"{name}-{symbols[0]}": energy for (name, symbols), energy in zip(POLYMORPHS, energies, strict=False)
    }
    values = [of_name.get(known.id(row), np.nan) for row in range(len(known))]
    return find_candidates(known.with_energies(np.float32(values), "morse"), {"Zn": 1, "O": 1}, Filter())


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_the_known_crystals_of_a_formula_have_their_share(share) -> None:
    known_crystals = Library.of([("one", "lab", member("wurtzite", ("Zn", "O")))])
    found = find_candidates(Library.joined([library(), known_crystals]), {"Zn": 1, "O": 1}, Filter())
    among = default_scorer().probabilities(found, known_share=share)
    others = default_scorer().probabilities(found.without_known())
    known = found.known() > 0
    assert among[known].sum() == pytest.approx(share, abs=1e-5)
    assert among[~known] == pytest.approx((1 - share) * others[~known])


def test_of_the_known_crystals_the_lower_one_is_likelier() -> None:
    def ratio(*energies: float) -> float:
        found = polymorphs(*energies)
        by_group = dict(
            zip(found.groups, default_scorer().probabilities(found, known_share=1.0), strict=True)
        )
        return float(by_group[225] / by_group[186])

    assert ratio(-4.0, -4.0 + WARMTH) == pytest.approx(np.exp(2) * ratio(-4.0 + WARMTH, -4.0), rel=1e-2)
    assert ratio(-4.0, -4.0) == pytest.approx(ratio(), rel=1e-2)


def test_a_formula_without_known_crystals_has_no_share_to_give() -> None:
    found = find_candidates(library(), {"Be": 1, "O": 1}, Filter())
    plain, mixed = (default_scorer().probabilities(found, known_share=k) for k in (0.0, 0.5))
    np.testing.assert_array_equal(plain, mixed)
