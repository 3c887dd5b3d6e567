from __future__ import annotations

import importlib.util
import os
import time

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

import energies
from crystallm import energy
from crystallm.energy import calculations, relaxation
from crystallm.energy import registry as models
from crystallm.errors import CrystallmError, InputError
from crystallm.execution.tasks import Failure


def needs(package):
    there = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(not there, reason=f"{package} is not installed")


needs_ase, needs_chgnet, needs_sevenn = needs("ase"), needs("chgnet"), needs("sevenn")


def of(element: str, a: float = 3.0) -> Structure:
    return Structure(Lattice.cubic(a), [element], [[0, 0, 0]])


@pytest.fixture
def strained(textbook_structures) -> Structure:
    """Rutile, its cell stretched and pressed."""
    rutile = textbook_structures["rutile"]
    return Structure(Lattice.tetragonal(5.0, 2.9), rutile.species, rutile.frac_coords)


# -- the protocol --------------------------------------------------------------------------------------------


def test_a_model_of_which_we_know_all_conforms():
    energy.check(energies.Morse())


@pytest.mark.parametrize(("said", "kind"), energies.BROKEN.items())
def test_a_broken_model_is_refused_with_what_is_broken(said, kind):
    with pytest.raises(CrystallmError, match=said):
        energy.check(kind())


@needs_ase
def test_a_calculator_of_ase_conforms():
    model = energy.load("ase.calculators.lj:LennardJones")
    calculator = pytest.importorskip("ase.calculators.lj").LennardJones(
        sigma=2.5, epsilon=0.2, rc=7.0, ro=5.0, smooth=True
    )
    from crystallm.energy.ase_adapter import AseModel

    assert type(model) is AseModel
    energy.check(AseModel(calculator, "lj"))


@needs_chgnet
@needs_ase
def test_chgnet_conforms_and_knows_rutile(textbook_structures):
    model = energy.load("chgnet", device="cpu")
    energy.check(model)
    (found,) = model.predict([textbook_structures["rutile"]], forces=True)
    # The Materials Project's energies with its corrections, on which it was trained.
    assert found.energy == pytest.approx(-9.38, abs=0.03)


@needs_sevenn
@needs_ase
@pytest.mark.filterwarnings("ignore")  # its packages announce much
def test_sevennet_conforms():
    energy.check(energy.load("sevennet", device="cpu"))


def test_a_factory_makes_a_model_and_the_device_is_told_to_those_that_ask(monkeypatch):
    assert energy.load("energies:morse").name == "morse"
    told = []

    def picky(device):
        told.append(device)
        return energies.Morse()

    monkeypatch.setattr(energies, "picky", picky, raising=False)
    energy.load("energies:picky", device="cuda:1")
    assert told == ["cuda:1"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dft", "no energy model 'dft': there are chgnet, sevennet, and module:factory"),
        ("no_such_module:f", "no module 'no_such_module'"),
        ("no_such_module.a:f", "no module 'no_such_module.a'"),
        ("energies:nothing", "has no 'nothing'"),
        ("time:time", "gave float: neither an ASE calculator nor an energy model"),
        (":", "no energy model"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(name, said):
    with pytest.raises(InputError, match=said) as caught:
        energy.load(name)
    assert "\n" not in str(caught.value)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(models, "find_spec", lambda _: None)
    with pytest.raises(CrystallmError, match=r"needs chgnet and ase: pip install 'crystallm\[energy\]'"):
        energy.load("chgnet")


# -- many crystals, and a model that fails -------------------------------------------------------------------


def test_what_fails_costs_one_crystal_its_energy_and_tells_why():
    crystals = [of(x) for x in ("Cu", "He", "Ar", "Kr", "Xe", "Ag", "Cu", "Ne")]
    crystals.append(Structure(Lattice.cubic(3), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]]))
    start = time.monotonic()
    copper, raised, nan, wild, died, silver, again, hung, disordered = calculations.score(
        crystals, "energies:odd", workers=2, seconds=5.0
    )
    assert time.monotonic() - start < 55  # it would sleep for 60
    assert copper == again == pytest.approx(energies.Morse().predict(crystals[:1])[0].energy)
    assert isinstance(silver, float)
    assert raised == Failure("ValueError: no helium here")
    assert nan == Failure("the energy is nan")
    assert wild == Failure("the energy is -4000 eV/atom, out of bounds (±100)")
    assert died == Failure("the worker process died with code 7")
    assert hung == Failure("took longer than 5 s")
    assert disordered == Failure("partial occupancies have no energy")


def test_no_crystals_have_no_energies_and_start_no_process():
    assert calculations.score([], "energies:odd") == []


def test_a_model_that_cannot_be_loaded_ends_the_run_with_its_reason():
    with pytest.raises(CrystallmError, match="^RuntimeError: the weights are gone$"):
        calculations.score([of("Cu")], "energies:unloadable")


# -- relaxation ----------------------------------------------------------------------------------------------


@needs_ase
def test_relaxation_goes_down_to_where_no_force_is_left(strained):
    before = strained.copy()
    found = relaxation.relax(strained, energies.Morse(), relaxation.RelaxOptions(fmax=0.01, trajectory=True))
    assert found.converged
    assert found.fmax < 0.01
    assert found.energy < found.energy_before - 0.01
    assert strained == before
    (last,) = energies.Morse().predict([found.structure], forces=True)
    assert last.energy == pytest.approx(found.energy)
    assert np.abs(last.forces).max() < 0.01
    assert [energy for _, energy in found.trajectory][:: found.steps] == [found.energy_before, found.energy]
    assert relaxation.Relaxed.of_record(found.record()) == found


@needs_ase
def test_a_bound_on_steps_holds(strained):
    found = relaxation.relax(strained, energies.Morse(), relaxation.RelaxOptions(steps=3, fmax=1e-6))
    assert (found.steps, found.converged, found.trajectory) == (3, False, ())
    assert (
        relaxation.relax(strained, energies.Morse(), relaxation.RelaxOptions(steps=0)).structure == strained
    )


@needs_ase
def test_symmetry_is_kept_on_wish_and_lost_without(strained):
    # Morse pairs like dense packing: rutile is a saddle, which a push leaves unless symmetry is kept.
    pushed = strained.copy()
    pushed.translate_sites([2], [0.0005, 0.0002, 0.0003])
    assert relaxation.space_group(pushed) == ("P4_2/mnm", 136)
    kept = relaxation.relax(
        pushed, energies.Morse(), relaxation.RelaxOptions(keep_symmetry=True, fmax=1e-3, steps=150)
    )
    assert relaxation.space_group(kept.structure)[1] == 136
    assert kept.energy < kept.energy_before
    assert "SPGLIB_OLD_ERROR_HANDLING" not in os.environ  # ASE leaves it, and spglib would raise elsewhere
    free = relaxation.relax(pushed, energies.Morse(), relaxation.RelaxOptions(fmax=1e-3, steps=150))
    assert relaxation.space_group(free.structure)[1] != 136


@needs_ase
def test_what_cannot_be_relaxed_says_why():
    cases = {"He": "no helium", "Ar": "the energy is nan", "Xe": "died with code 7", "Ne": "longer than 12 s"}
    crystals = [of("Cu"), *map(of, cases)]
    found = dict(calculations.relax_many(crystals, "energies:odd", n_workers=2, seconds=12.0))
    assert found[0].energy <= found[0].energy_before
    for i, said in enumerate(cases.values(), start=1):
        assert said in found[i].reason


@needs_ase
def test_a_model_without_stress_relaxes_nothing():
    class Bare(energies.Morse):
        def one(self, structure, forces):
            said = super().one(structure, forces)
            return energies.Prediction(said.energy, said.forces)

    with pytest.raises(CrystallmError, match="morse gives no stress, which relaxation needs"):
        relaxation.relax(of("Cu"), Bare())


def test_a_cif_of_a_relaxed_structure_has_its_group(textbook_structures):
    for structure in textbook_structures.values():
        _, number = relaxation.space_group(structure)
        text = relaxation.to_cif(structure)
        assert f"_symmetry_Int_Tables_number   {number}\n" in text
