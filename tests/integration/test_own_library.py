"""Crystals of a new prototype, given as a folder of CIFs: without training, others of it come first."""

from __future__ import annotations

import itertools

import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

import crystallm
from crystallm.references.options import ReferenceOptions

FIRST, SECOND, ANIONS = ("Na", "K", "Rb", "Cs", "Ag"), ("Sc", "Y", "La", "In", "Bi"), ("F", "Cl")
WANTED = ("Tl", "Lu", "Cl")


def invented(first: str, second: str, anion: str) -> Structure:
    """Return A B X3 in I4mm (no. 107), an arrangement that was made up for this test."""
    edge = 4.3 if anion == "F" else 5.6
    return Structure.from_spacegroup(
        "I4mm",
        Lattice.tetragonal(edge, 2.1 * edge),
        [first, second, anion, anion],
        [[0, 0, 0.0], [0, 0, 0.46], [0, 0.5, 0.31], [0, 0, 0.72]],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Fifty of them, as CIFs, and none of the requested elements."""
    path = tmp_path_factory.mktemp("lab")
    for symbols in itertools.product(FIRST, SECOND, ANIONS):
        invented(*symbols).to(filename=str(path / f"{''.join(symbols)}.cif"))
    assert len(list(path.iterdir())) == 50
    return path


def test_a_new_prototype_is_found_first_without_training(folder) -> None:
    truth = invented(*WANTED)
    formula = truth.composition.reduced_formula
    known = ReferenceOptions(crystals_from="references", references=(folder,))
    first = crystallm.generate(formula, n=3, known=known)[0]
    assert StructureMatcher(ltol=0.3, stol=0.5, angle_tol=10).fit(first.structure, truth)
    assert first.structure.get_space_group_info()[1] == truth.get_space_group_info()[1] == 107
    assert first.source.relative.source == folder.name
