"""search() in Python, and what is shown of a search."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import crystallm
from crystallm.errors import InputError
from crystallm.generation.request import SamplingOptions
from crystallm.structure_search.api import best_so_far
from crystallm.structure_search.search import Search


def test_the_lowest_energy_so_far_is_a_staircase_to_the_end_of_the_search():
    def of(call, energy, seconds):
        return SimpleNamespace(call=call, seconds=seconds, crystal=SimpleNamespace(objective=energy))

    samples = [of(1, -2.0, 5.0), of(None, -2.0, 5.0), of(2, -1.0, 6.0), of(3, -3.0, 9.0), of(4, None, 12.0)]
    assert best_so_far(samples) == [(1.0, -2.0), (3.0, -2.0), (3.0, -3.0), (4.0, -3.0)]
    assert best_so_far(samples, seconds=True) == [(5.0, -2.0), (9.0, -2.0), (9.0, -3.0), (12.0, -3.0)]
    assert best_so_far([of(1, None, 1.0)]) == []


def test_settings_and_an_open_z_reach_the_search(parrot, monkeypatch):
    seen = []

    class Recorded(Search):
        def run(self, **_):
            seen.append((self.request.z, self.settings.top_k))
            return []

    monkeypatch.setattr("crystallm.structure_search.api.Search", Recorded)
    every, few = SamplingOptions(top_k=None), SamplingOptions(top_k=3)
    asked = [("TiO2", None, None), ("Ti2O4", None, every), ("TiO2", 1, few)]
    for formula, z, settings in asked:
        found = crystallm.search(formula, z=z, energy="energies:morse", model=parrot, settings=settings)
        assert found == []
    # Z is open where a reduced formula does not give it; without settings, top_k is the default.
    assert seen == [("auto", 10), (None, None), (1, 3)]


def test_python_gets_crystals_best_first_and_errors_for_bad_requests(parrot):
    crystals = crystallm.search(
        "TiO2", z=2, simulations=8, energy="energies:morse", model=parrot, seed=1, device="cpu"
    )
    assert crystals
    assert [crystal.energy for crystal in crystals] == sorted(crystal.energy for crystal in crystals)
    assert all(crystal.validity.valid for crystal in crystals)
    for wrong, message in (
        ({"preset": "theirs"}, "preset = 'theirs'"),
        ({"energy": "dft"}, "no energy model 'dft'"),
        ({"z": 0}, "z"),
        ({"space_group": "P77"}, "P77"),
        ({"workers": 0}, "workers=0"),
    ):
        with pytest.raises(InputError, match=message):
            crystallm.search("TiO2", **{"energy": "energies:morse", "model": "nowhere", **wrong})
