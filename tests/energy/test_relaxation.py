"""Relaxation of one structure."""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

import energies
from crystallm.energy import calculations, relaxation
from crystallm.errors import CrystallmError


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
@pytest.mark.parametrize(("axis", "where"), [(3.0, 0.07), (0.3, 0.5)], ids=["two atoms", "own images"])
def test_a_crystal_that_ends_with_atoms_on_top_of_each_other_is_not_sensible(axis, where):
    class Flat(energies.Morse):
        def one(self, structure, forces):
            return energies.Prediction(0.0, np.zeros((len(structure), 3)), np.zeros((3, 3)))

    pair = Structure(Lattice.orthorhombic(axis, 3, 3), ["Cu", "Cu"], [[0, 0, 0], [where, 0, 0]])
    with pytest.raises(CrystallmError, match="the relaxed cell is not sensible: atoms are 0.[12]"):
        relaxation.relax(pair, Flat())
    pair = Structure(Lattice.cubic(3), ["Cu", "Cu"], [[0, 0, 0], [0.5, 0, 0]])
    assert relaxation.relax(pair, Flat()).converged


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
