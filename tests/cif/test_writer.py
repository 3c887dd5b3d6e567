"""Structures become the published texts, and texts become CIFs for other programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.core.structure_matcher import StructureMatcher

from crystallm.cif import block as cif_block
from crystallm.cif import parser, standard_structure, tokenizer, writer
from crystallm.crystallography import elements
from crystallm.errors import CrystallmError, InputError, TextError
from real_crystals import published, rutile_text, structures

PAULING = [symbol for symbol in elements.symbols() if symbol not in {"He", "Ne", "Ar"}]
"""Elements with an electronegativity; pymatgen warns of the others."""


def test_the_published_structures_have_the_published_texts_and_ids() -> None:
    texts = [writer.to_text(structure) for structure in structures()]
    assert len(texts) == 500
    pairs = list(zip(published(), texts, strict=True))
    assert [row["id"] for row, text in pairs if text != row["text"]] == []
    assert [row["id"] for row, text in pairs if tokenizer.encode(text) != row["ids"]] == []


def test_a_text_names_cell_group_and_orbits() -> None:
    parsed = parser.parse(rutile_text())
    assert (parsed.space_group, parsed.space_group_number, parsed.printed_number) == ("P4_2/mnm", 136, 136)
    assert parsed.composition == parsed.formula_sum == (("Ti", 2), ("O", 4))
    assert (parsed.formula_structural, parsed.z, parsed.volume) == ("TiO2", 2, 62.4347)
    assert parsed.cell == (4.5937, 4.5937, 2.9587, 90.0, 90.0, 90.0)
    assert [row[:7] for row in parsed.rows] == [
        ("Ti", "Ti0", 2, 0.0, 0.0, 0.0, 1.0),
        ("O", "O1", 4, 0.1952, 0.8048, 0.5, 1.0),
    ]


def test_the_text_does_not_depend_on_how_the_crystal_lies() -> None:
    turned = standard_structure.to_structure(rutile_text())
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    rotation *= np.linalg.det(rotation)
    turned = Structure(turned.lattice.matrix @ rotation.T, turned.species, turned.frac_coords)
    assert writer.to_text(turned) == writer.to_text(standard_structure.to_structure(rutile_text()))


def test_oxidation_states_are_left_out() -> None:
    charged = standard_structure.to_structure(rutile_text()).add_oxidation_state_by_element(
        {"Ti": 4, "O": -2}
    )
    assert writer.to_text(charged) == writer.to_text(standard_structure.to_structure(rutile_text()))


@pytest.mark.parametrize(
    ("species", "points", "kind", "message"),
    [
        (["Po"], [[0, 0, 0]], InputError, "element Po .* no token"),
        ([{"Na": 0.5}], [[0, 0, 0]], InputError, "Na0.5: sites shared .* partly empty"),
        ([], [], InputError, "0 atoms"),
        (["O"], [[0, 0, 0]], TextError, "0.5 formula units of O2"),
        (["Na", "Na"], [[0, 0, 0], [0.001, 0, 0]], TextError, "no symmetry"),
    ],
)
def test_structures_without_a_text_are_refused(
    species: list[Any], points: list[Any], kind: type[CrystallmError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        writer.to_text(Structure(Lattice.cubic(4), species, points))


@given(st.dictionaries(st.sampled_from(PAULING), st.integers(1, 40), min_size=1, max_size=6))
def test_formula_units_are_those_of_pymatgen(counts: dict[str, int]) -> None:
    formula, factor = Composition(counts).get_reduced_formula_and_factor()
    assert writer.formula_unit(counts) == (formula, factor)


def test_the_cif_is_read_by_pymatgen_as_the_same_crystal() -> None:
    matcher = StructureMatcher()
    for row in published()[::10]:
        structure = standard_structure.to_structure(row["text"])
        read = Structure.from_str(writer.to_cif(row["text"]), fmt="cif")
        assert len(read) == len(structure)
        assert matcher.fit(read, structure)


def test_the_cif_is_read_by_ase_with_all_atoms_and_its_group() -> None:
    ase_cif = pytest.importorskip("ase.io.cif")
    import io

    for row in published()[::25]:
        block = next(iter(ase_cif.parse_cif(io.StringIO(writer.to_cif(row["text"])))))
        assert len(block.get_atoms()) == len(standard_structure.to_structure(row["text"]))
        assert block.get_spacegroup(None).no == parser.parse(row["text"]).space_group_number


def test_the_cif_holds_all_operators_and_no_properties() -> None:
    written = writer.to_cif(rutile_text())
    assert written.count("'x, y, z'") == 1
    assert "  16  '" in written
    assert "  17  '" not in written
    assert "_atom_type" not in written
    assert f"{cif_block.GROUP}   'P4_2/mnm'" in written
    assert "_chemical_formula_sum   'Ti2 O4'" in written


def test_coordinates_that_are_no_numbers_are_refused():
    structure = Structure(Lattice.cubic(4.0), ["Na", "Cl"], [[0, 0, 0], [float("nan"), 0.5, 0.5]])
    with pytest.raises(InputError, match="NaN or infinity"):
        writer.to_text(structure)
