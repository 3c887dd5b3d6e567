"""Relaxation of one structure."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

import energies
from crystallm.energy import calculations, relaxation
from crystallm.errors import CrystallmError


def of(element: str, a: float = 3.0) -> Structure:
    return Structure(Lattice.cubic(a), [element], [[0, 0, 0]])


@pytest.fixture
def strained(textbook_structures) -> Structure:
    """Rutile, its cell stretched and pressed."""
    rutile = textbook_structures["rutile"]
    return Structure(Lattice.tetragonal(5.0, 2.9), rutile.species, rutile.frac_coords)


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


def test_a_bound_on_steps_holds(strained):
    found = relaxation.relax(strained, energies.Morse(), relaxation.RelaxOptions(steps=3, fmax=1e-6))
    assert (found.steps, found.converged, found.trajectory) == (3, False, ())
    assert (
        relaxation.relax(strained, energies.Morse(), relaxation.RelaxOptions(steps=0)).structure == strained
    )


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
    free = relaxation.relax(pushed, energies.Morse(), relaxation.RelaxOptions(fmax=1e-3, steps=150))
    assert relaxation.space_group(free.structure)[1] != 136


@pytest.mark.parametrize("keep_symmetry", [False, True])
def test_no_step_raises_the_energy(textbook_structures, keep_symmetry):
    options = relaxation.RelaxOptions(keep_symmetry=keep_symmetry, fmax=0.01, steps=20, trajectory=True)
    for name in ("rutile", "wurtzite"):
        ideal = textbook_structures[name]
        far = Structure(ideal.lattice.matrix * 1.1, ideal.species, ideal.frac_coords)
        found = relaxation.relax(far, energies.Morse(), options)
        values = [energy for _, energy in found.trajectory]
        assert len(values) == found.steps + 1
        assert np.diff(values).max() <= relaxation.ROUNDING
        if keep_symmetry:
            # The minimum can have more symmetry, as wurtzite's of Morse pairs has.
            assert relaxation.space_group(found.structure)[1] >= relaxation.space_group(far)[1]


def test_one_variable_needs_few_energies_of_the_primitive_cell():
    class Counted(energies.Morse):
        def one(self, structure, forces):
            sizes.append(len(structure))
            return super().one(structure, forces)

    sizes: list[int] = []
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(6.2), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    options = relaxation.RelaxOptions(keep_symmetry=True, fmax=1e-3)
    found = relaxation.relax(salt, Counted(), options)
    assert found.converged
    assert len(sizes) <= 12
    assert set(sizes) == {2}
    assert found.structure.species == salt.species
    assert found.structure.frac_coords == pytest.approx(salt.frac_coords)
    assert found.structure.lattice.abc == pytest.approx([found.structure.lattice.a] * 3)


def test_it_ends_where_the_energy_falls_no_further(strained):
    class Uphill(energies.Morse):
        def one(self, structure, forces):
            said = super().one(structure, forces)
            return energies.Prediction(said.energy, -said.forces, -said.stress)

    found = relaxation.relax(strained, Uphill())
    assert (found.steps, found.converged) == (0, False)
    assert found.energy == found.energy_before


def test_what_cannot_be_relaxed_says_why():
    cases = {"He": "no helium", "Ar": "the energy is nan", "Xe": "died with code 7", "Ne": "longer than 12 s"}
    crystals = [of("Cu"), *map(of, cases)]
    found = dict(calculations.relax_many(crystals, "energies:odd", n_workers=2, seconds=12.0))
    assert found[0].energy <= found[0].energy_before
    for i, said in enumerate(cases.values(), start=1):
        assert said in found[i].reason


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
