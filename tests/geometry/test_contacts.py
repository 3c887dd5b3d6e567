"""Where atoms stand too close, and where on a line they do not."""

from __future__ import annotations

import numpy as np
import pytest

from crystallm.crystallography import cells, space_groups
from crystallm.geometry import contacts, distances

CELL = (5.1, 6.2, 4.4, 83.0, 97.0, 112.0)  # Å, degrees
STEPS = 1000


def orbit(group, index, values):
    matrices, shifts = group.orbit_maps[index]
    return (matrices @ np.array(values) + shifts) % 1.0


@pytest.mark.parametrize("number", [1, 2, 14, 62, 136, 148, 166, 194, 216, 221, 227])
def test_orbit_maps_are_orbits(number):
    group = space_groups.get(number)
    for index, position in enumerate(group.wyckoff):
        values = (0.137, 0.291, 0.418)[: len(position.free)]
        assert len(orbit(group, index, values)) == position.multiplicity
        off = orbit(group, index, values) - group.orbit(position.point(values))
        assert np.abs(off - np.rint(off)).max() < 1e-9


@pytest.mark.parametrize("symbol", ["Ti", "O"])  # without and with a gap of distances to oxygen
@pytest.mark.parametrize("number", [1, 2, 14, 62, 136, 148, 166, 194, 216, 221, 227])
def test_what_is_clear_does_not_meet(number, symbol):
    """The roots of quadratics say of each value what distances say."""
    rng = np.random.default_rng(number)
    group = space_groups.get(number)
    free = dict(zip(space_groups.PARAMETERS, CELL, strict=True))
    free["a"] *= 1 + len(group.rotations) ** (1 / 3)  # room for many atoms
    cell = group.complete_cell({name: free[name] for name in group.free_cell})
    shares = []
    for index, position in enumerate(group.wyckoff):
        if not position.free:
            continue
        atoms = contacts.PlacedAtoms(cells.lattice(cell))
        atoms.add(rng.random((3, 3)), "O")
        known = rng.integers(0, STEPS, len(position.free) - 1) / STEPS
        matrices, shifts = group.orbit_maps[index]
        ways = matrices[:, :, -1], matrices[:, :, :-1] @ known + shifts
        clear = atoms.clear(ways, STEPS, symbol)
        meets = [atoms.meets(orbit(group, index, [*known, k / STEPS]), symbol) for k in range(STEPS)]
        assert clear.tolist() == [not x for x in meets]
        shares.append(clear.mean())
    assert max(shares) > 0


def test_nothing_is_clear_in_a_cell_too_small_for_one_atom():
    atoms = contacts.PlacedAtoms(cells.lattice((1.0, 9.0, 9.0, 90.0, 90.0, 90.0)))
    ways = np.array([[0.0, 0.0, 1.0]]), np.zeros((1, 3))
    assert not atoms.clear(ways, STEPS, "Cs").any()


@pytest.mark.parametrize(("edge", "meets"), [(2.0, True), (6.0, False)])
def test_an_atom_meets_its_own_images(edge, meets):
    atoms = contacts.PlacedAtoms(cells.lattice((edge, 9.0, 9.0, 90.0, 90.0, 90.0)))
    assert atoms.meets(np.zeros((1, 3)), "Cs") is meets


def test_atoms_meet_their_nearest_images():
    """Against distances to all images, in cells so oblique that rounding fractions finds others."""
    rng, answers = np.random.default_rng(0), []
    images = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3), axis=-1).reshape(-1, 3)
    for angle in (40.0, 60.0, 120.0, 140.0):
        vectors = cells.lattice((4.5, 4.5, 9.0, 90.0, 90.0, angle))
        for _ in range(25):
            atoms, own = contacts.PlacedAtoms(vectors), rng.random((2, 3))
            others = own[1:]
            if rng.random() < 0.5:  # an orbit placed before, or the second atom of one orbit
                atoms.add(own[1:], "Ti")
                own = own[:1]
            off = (others - own[0] + images) @ vectors
            least = contacts.least_distance("Ti", "Ti")
            answers.append(atoms.meets(own, "Ti"))
            assert answers[-1] == (np.linalg.norm(off, axis=1).min() < least)
    assert 10 < sum(answers) < 90


def test_lone_atoms_are_implausible():
    """Two sodium chloride pairs 4.5 Å from each other, and the same with one sodium atom far from all."""
    atoms = contacts.PlacedAtoms(cells.lattice((12.0, 12.0, 12.0, 90.0, 90.0, 90.0)))
    atoms.add(np.array([[0.0, 0.0, 0.0]]), "Na")
    atoms.add(np.array([[0.23, 0.0, 0.0]]), "Cl")
    assert not any(one == other for one, other in atoms.implausible)
    atoms.add(np.array([[0.5, 0.5, 0.5]]), "Na")
    assert atoms.has_implausible_bonds()
    assert (2, 2) in atoms.implausible
    assert (0, 0) not in atoms.implausible


@pytest.mark.parametrize(("one", "other"), [("H", "H"), ("O", "H"), ("O", "O"), ("N", "H")])
def test_distances_that_no_known_crystal_has_are_forbidden(one, other):
    least = distances.known().least[one, other]
    atoms = contacts.PlacedAtoms(cells.lattice((8.0, 8.0, 8.0, 90.0, 90.0, 90.0)))
    atoms.add(np.zeros((1, 3)), one)
    assert atoms.meets(np.array([[(least - 0.02) / 8, 0, 0]]), other)
    assert not atoms.meets(np.array([[(least + 0.02) / 8, 0, 0]]), other)


@pytest.mark.parametrize(("one", "other"), [("F", "F"), ("O", "O"), ("S", "O"), ("P", "O")])
def test_distances_between_bond_and_contact_are_forbidden(one, other):
    least, start, end = contacts.forbidden_distances(one, other)
    assert least <= start < end
    atoms = contacts.PlacedAtoms(cells.lattice((8.0, 8.0, 8.0, 90.0, 90.0, 90.0)))
    atoms.add(np.zeros((1, 3)), one)
    for distance in (start + 0.02, end - 0.02):
        assert atoms.meets(np.array([[distance / 8, 0, 0]]), other)
    for distance in ((least + start) / 2, end + 0.02):
        assert atoms.meets(np.array([[distance / 8, 0, 0]]), other) is (distance < least)


def test_atoms_are_added_beyond_the_room_there_is_at_first():
    rng = np.random.default_rng(0)
    atoms, points = contacts.PlacedAtoms(cells.lattice(CELL)), rng.random((75, 3))
    for i in range(0, 75, 25):
        atoms.add(points[i : i + 25], "HeLiBe"[2 * (i // 25) :][:2])
    assert (atoms.points == points).all()
    assert atoms.sizes == [25, 25, 25]
    assert atoms._limits("O", 75)[[0, 30, 74], 0].tolist() == [
        contacts.least_distance("O", symbol) for symbol in ("He", "Li", "Be")
    ]
