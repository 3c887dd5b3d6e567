from __future__ import annotations

import pytest
from pymatgen.core import Structure
from pymatgen.core.structure_matcher import StructureMatcher

from crystallm.cif import standard_structure
from crystallm.crystals.crystal import Crystal, Source
from crystallm.crystals.table import COLUMNS
from crystallm.errors import TextError
from crystallm.language import get_language
from crystallm.validity import checks
from crystallm.validity import verdict as validity_verdict


@pytest.fixture(params=["orbits", "cif"])
def language(request):
    return get_language(request.param)


@pytest.fixture
def rutile(language, textbook_structures):
    ids = language.encode(textbook_structures["rutile"])
    return Crystal(language, ids, n_prompt=1, log_likelihood=-12.5, source=Source("m", 3, 7, "TiO2"))


def test_a_crystal_is_one_thing_in_every_form(rutile, textbook_structures):
    expected = textbook_structures["rutile"]
    for structure in (
        rutile.structure,
        Structure.from_str(rutile.cif, fmt="cif"),
        standard_structure.to_structure(rutile.text),
    ):
        assert len(structure) == 6
        assert StructureMatcher().fit(structure, expected)
    assert rutile.text.startswith("data_Ti2O4\n")
    assert (rutile.space_group, rutile.space_group_number) == ("P4_2/mnm", 136)
    assert rutile.validity.valid
    assert rutile.validity == checks.check(rutile)
    assert rutile.energy is None
    assert repr(rutile) == "<Crystal Ti2O4 P4_2/mnm>"


def test_the_structure_of_a_relaxed_crystal_is_the_one_that_its_energy_is_of(rutile):
    generated, generated_cif, verdict = rutile.structure, rutile.cif, rutile.validity
    relaxed = generated.copy().scale_lattice(1.1 * generated.volume)
    rutile.relaxed, rutile.energy = relaxed, -9.0
    assert rutile.structure == relaxed
    assert Structure.from_str(rutile.cif, fmt="cif").volume == pytest.approx(relaxed.volume, rel=1e-4)
    assert rutile.row()["cif"] == rutile.cif
    assert rutile.row()["volume_per_atom"] == pytest.approx(relaxed.volume / 6)
    assert rutile.generated == generated
    assert rutile.generated_cif == generated_cif
    assert rutile.validity == verdict == checks.check(rutile)
    pytest.importorskip("ase")
    assert rutile.atoms.get_volume() == pytest.approx(relaxed.volume)


def test_its_row_fills_the_columns_that_a_run_does_not(rutile):
    row = rutile.row()
    asked = {"requested_formula", "requested_elements", "requested_z", "requested_space_group", "prompt"}
    relatives = {"relative", "relative_formula", "relative_distance"}
    run_knows = {"request", "sample", "kept", "file"} | asked | relatives
    assert set(row) == set(COLUMNS) - run_knows
    assert (row["formula"], row["reduced_formula"], row["n_atoms"]) == ("Ti2O4", "TiO2", 6)
    assert row["a"] == pytest.approx(4.594, abs=0.006)
    assert row["c"] == pytest.approx(2.958, abs=0.006)
    assert row["gamma"] == pytest.approx(90)
    assert row["volume_per_atom"] == pytest.approx(4.594**2 * 2.958 / 6, rel=0.01)
    assert (row["model"], row["seed"], row["sample_index"], row["log_likelihood"]) == ("m", 3, 7, -12.5)
    assert (row["valid"], row["reasons"]) == (True, "")


@pytest.mark.parametrize("ended", [True, False])
def test_half_a_crystal_says_what_is_wrong_and_never_raises_where_it_is_judged(
    language, textbook_structures, ended
):
    ids = language.encode(textbook_structures["rutile"])
    half = Crystal(language, ids[: len(ids) // 2], ended=ended)
    with pytest.raises(TextError):
        _ = half.structure
    with pytest.raises(TextError):
        _ = half.cif
    assert not half.validity.valid
    assert len(half.validity.reasons) == 1
    row = half.row()
    assert not row["valid"]
    assert row["reasons"]
    assert row["text"] == half.sampled_text
    assert "formula" not in row
    assert repr(half).startswith("<Crystal, broken: ")


def test_a_verdict_from_elsewhere_is_taken(rutile):
    verdict = validity_verdict.Validity(True, True, True, 0.5, True, False, ("bonds: half of them",))  # noqa: FBT003
    rutile.set_validity(verdict)
    assert rutile.validity == verdict
    assert rutile.row()["reasons"] == "bonds: half of them"


def test_no_tokens_are_no_crystal(language):
    nothing = Crystal(language, [])
    assert not nothing.validity.valid
    assert nothing.row()["text"] == ""
