"""CIFs of all space groups, by the writers of pymatgen, ASE and ours, in many cells, are read as meant.

A crystal is written in its conventional cell, in its primitive cell, and in the other setting of its group
where there are two: from the other origin, or on rhombohedral axes.
"""

from __future__ import annotations

import io
from functools import cache

import gemmi
import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from crystallm.cif import structure_reader, writer
from crystallm.geometry.symmetry_search import find_symmetry
from crystallm.structures import comparison
from real_crystals import random_crystal

GROUPS = range(1, 231)
OTHERS = {
    group.number: group
    for group in gemmi.spacegroup_table()
    if group.ext in "2R" and group.hm == gemmi.get_spacegroup_reference_setting(group.number).hm
}
"""Of the groups with two settings: ours is the first origin, or hexagonal axes."""


@cache
def cells(number):
    """A crystal of a group in its conventional cell, its primitive one, and that of the other setting."""
    crystal = random_crystal(number, 0)
    found = {"conventional": crystal}
    if (group := OTHERS.get(number)) is not None:
        found[group.xhm()] = in_setting(crystal, group)
    primitive = SpacegroupAnalyzer(crystal, 0.01).find_primitive()
    if len(primitive) < len(crystal):
        found["primitive"] = primitive
    return found


def in_setting(crystal, group):
    """A crystal in the second setting of its group; its symmetry is checked."""
    first = gemmi.find_spacegroup_by_name(f"{group.hm}:{'H' if group.ext == 'R' else '1'}")
    operator = group.basisop * first.basisop.inverse()
    rotation, shift = np.array(operator.rot) / 24, np.array(operator.tran) / 24
    points = crystal.frac_coords @ rotation.T + shift
    points -= np.floor(points + 1e-9)
    lattice = Lattice(np.linalg.inv(rotation).T @ crystal.lattice.matrix)
    kept = []
    for i, point in enumerate(points):  # a smaller cell has fewer atoms
        apart = point - points[kept]
        if not (np.abs(apart - np.rint(apart)) < 1e-6).all(axis=1).any():
            kept.append(i)
    moved = Structure(lattice, [crystal.species[i] for i in kept], points[kept])
    assert len(moved) == round(len(crystal) / np.linalg.det(rotation))
    for op in group.operations():
        images = moved.frac_coords @ (np.array(op.rot) / 24).T + np.array(op.tran) / 24
        assert same_atoms(moved, Structure(lattice, moved.species, images))
    return moved


def same_atoms(one, other, tolerance=0.02):
    """Whether two structures have the same lengths and angles, and the same atoms at the same points."""
    if len(one) != len(other) or not np.allclose(one.lattice.parameters, other.lattice.parameters, atol=1e-3):
        return False
    for number in set(one.atomic_numbers):
        points = [s.frac_coords[np.array(s.atomic_numbers) == number] for s in (one, other)]
        if len(points[0]) != len(points[1]):
            return False
        apart = points[0][:, None] - points[1][None]
        apart -= np.rint(apart)
        near = np.linalg.norm(apart @ one.lattice.matrix, axis=2) < tolerance  # Å
        if not (near.any(axis=0).all() and near.any(axis=1).all()):
            return False
    return True


def by_pymatgen(structure):
    """With the operators of the group in the cell as it is."""
    return str(CifWriter(structure, symprec=0.01, refine_struct=False))


def by_pymatgen_refined(structure):
    """With the operators of the group, in its standard cell."""
    return str(CifWriter(structure, symprec=0.01))


def by_pymatgen_listed(structure):
    return str(CifWriter(structure))


def by_ase(structure):
    ase_io = pytest.importorskip("ase.io", reason="the writer of ASE needs ase")
    from ase import Atoms

    atoms = Atoms(
        numbers=structure.atomic_numbers,
        scaled_positions=structure.frac_coords,
        cell=structure.lattice.matrix,
        pbc=True,
    )
    text = io.BytesIO()
    ase_io.write(text, atoms, format="cif")
    return text.getvalue().decode()


def by_us(structure):
    return writer.to_cif(writer.to_text(structure))


def number_of(structure):
    symmetry = find_symmetry(structure.lattice.matrix, structure.frac_coords, structure.atomic_numbers)
    return symmetry.number


@pytest.mark.parametrize("write", [by_pymatgen, by_pymatgen_listed, by_ase], ids=lambda f: f.__name__[3:])
def test_a_cell_is_read_back_as_it_was_written(write):
    for number in GROUPS:
        for name, structure in cells(number).items():
            found = structure_reader.structure(write(structure))
            assert same_atoms(found, structure), (number, name)
            assert number_of(found) == number, (number, name)


@pytest.mark.parametrize("write", [by_pymatgen_refined, by_us], ids=lambda f: f.__name__[3:])
def test_a_standard_cell_is_read_back_as_the_same_crystal(write):
    matcher = comparison.matcher(comparison.Tolerances(0.01, 0.02, 0.5), scale=False)
    for number in GROUPS:
        for name, structure in cells(number).items():
            found = structure_reader.structure(write(structure))
            assert number_of(found) == number, (number, name)
            assert matcher.fit(found, cells(number)["conventional"]), (number, name)


def test_there_are_groups_with_two_origins_and_with_two_axes():
    assert [sum(group.ext == ext for group in OTHERS.values()) for ext in "2R"] == [24, 7]
    assert [name for number in (166, 227) for name in cells(number)] == [
        "conventional", "R -3 m:R", "primitive", "conventional", "F d -3 m:2", "primitive",
    ]  # fmt: skip
