"""Formation energies, and the energies of the elements."""

from __future__ import annotations

import importlib.util
import json

import pytest
from pymatgen.core import Composition

from crystallm.energy import calculations
from crystallm.errors import CrystallmError
from crystallm.thermodynamics import formation, reference_crystals

pytestmark = pytest.mark.usefixtures("kept")


needs_ase = pytest.mark.skipif(importlib.util.find_spec("ase") is None, reason="ase is not installed")


def test_a_formation_energy_is_counted_from_the_shares_of_the_elements():
    energies = {"Ti": -7.0, "O": -5.0}
    # (-7 + 2 * -5) / 3 = -5.667
    assert formation.formation_energy(Composition("Ti2O4"), -9.0, energies) == pytest.approx(-10 / 3)
    assert formation.formation_energy(Composition("Ti"), -7.0, energies) == pytest.approx(0.0)
    assert formation.formation_energy(Composition("ZrO2"), -9.0, energies) is None


@needs_ase
def test_energies_of_elements_are_kept_in_a_file(tmp_path, monkeypatch):
    file = tmp_path / "deep" / "morse.json"
    found = formation.element_energies(["Cu", "Al"], "energies:morse", file=file)
    assert set(found) == {"Cu", "Al"}
    assert json.loads(file.read_text()) == {"version": reference_crystals.VERSION, "energies": found}

    def not_again(*_, **__):
        raise AssertionError("they are known")

    monkeypatch.setattr(calculations, "relax_all", not_again)
    assert formation.element_energies(["Al"], "energies:morse", file=file) == {"Al": found["Al"]}
    file.write_text("[1, 2]")
    with pytest.raises(CrystallmError, match="holds no energies of elements: delete it"):
        formation.element_energies(["Al"], "energies:morse", file=file)


@needs_ase
@pytest.mark.parametrize("kept", ['{"Cu": -9.0}', '{"version": 1, "energies": {"Cu": -9.0}}'])
def test_energies_of_other_reference_crystals_do_not_count(tmp_path, kept):
    file = tmp_path / "morse.json"
    file.write_text(kept)
    found = formation.element_energies(["Cu"], "energies:morse", file=file)
    assert found["Cu"] > -9
    assert json.loads(file.read_text()) == {"version": reference_crystals.VERSION, "energies": found}


@needs_ase
def test_energies_of_elements_that_are_not_relaxed_are_not_kept(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(formation, "STEPS", 0)
    file = tmp_path / "morse.json"
    assert formation.element_energies(["Cu"], "energies:morse", file=file) == {}
    assert "the reference crystal of Cu is not relaxed after 0 steps" in caplog.text
    monkeypatch.undo()
    assert set(formation.element_energies(["Cu"], "energies:morse", file=file)) == {"Cu"}
