"""Clusters of equal structures."""

from __future__ import annotations

import pytest
from pymatgen.core import Lattice, Structure

from crystallm.errors import CrystallmError
from crystallm.execution.pool import Inline
from crystallm.structures import duplicates


def rock_salt(a: float, *, primitive: bool = False) -> Structure:
    cell = Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    return cell.get_primitive_structure() if primitive else cell


def cesium_chloride_type(a: float) -> Structure:
    return Structure(Lattice.cubic(a), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def test_equal_structures_share_a_cluster_in_any_cell(textbook_structures):
    rutile = textbook_structures["rutile"]
    found = duplicates.cluster_duplicates(
        [[rock_salt(5.64), cesium_chloride_type(3.5), rock_salt(5.5, primitive=True), None, rutile]],
        executor=Inline(),
    )
    assert found == [[0, 1, 0, None, 2]]


def test_requests_are_clustered_separately():
    assert duplicates.cluster_duplicates(
        [[rock_salt(5.6)], [], [cesium_chloride_type(3.5), rock_salt(5.6)]], executor=Inline()
    ) == [
        [0],
        [],
        [0, 1],
    ]


def test_a_process_that_fails_costs_only_the_comparison():
    # No process compares anything in a ten-thousandth of a second.
    same = rock_salt(5.64)
    assert duplicates.cluster_duplicates([[same, rock_salt(5.5), same.copy()]], seconds=1e-4, workers=1) == [
        [0, 1, 0]
    ]


def test_a_missing_package_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "scipy.py").write_text("raise ModuleNotFoundError(\"No module named 'scipy'\", name='scipy')")
    monkeypatch.syspath_prepend(tmp_path)  # this process has scipy already, its workers have not
    with pytest.raises(CrystallmError, match="No module named 'scipy'; pip install pymatgen-core") as error:
        duplicates.cluster_duplicates([[rock_salt(5.64), rock_salt(5.5)]], workers=1)
    assert "\n" not in str(error.value)


def test_a_needle_like_cell_equals_only_identical_ones():
    needle = Structure(Lattice.orthorhombic(1.0, 1.0, 900.0), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert duplicates.cluster_duplicates(
        [[needle, rock_salt(5.6), needle.copy(), rock_salt(5.5)]], executor=Inline()
    ) == [[0, 1, 0, 1]]


def test_clusters_do_not_depend_on_the_size_of_blocks(monkeypatch, textbook_structures):
    structures = [rock_salt(5.0 + 0.05 * i) for i in range(6)] + [cesium_chloride_type(3.5)] * 2
    expected = duplicates.cluster_duplicates([structures], executor=Inline())
    assert expected == [[0] * 6 + [1] * 2]
    monkeypatch.setattr(duplicates, "BLOCK", 1)
    assert duplicates.cluster_duplicates([structures], executor=Inline()) == expected
