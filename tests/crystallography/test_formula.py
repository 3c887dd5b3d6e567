from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystallm.crystallography import elements
from crystallm.crystallography.formula import MAX_ATOMS, cell, molecule_units, of_atoms, parse, short, system
from crystallm.errors import InputError


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("TiO2", {"Ti": 1, "O": 2}),
        ("Ti2O4", {"Ti": 2, "O": 4}),
        ("Ti2 O4", {"Ti": 2, "O": 4}),
        (" Ti 1 O 2 ", {"Ti": 1, "O": 2}),
        ("TiO₂", {"Ti": 1, "O": 2}),
        ("TiO_2", {"Ti": 1, "O": 2}),
        ("TiO_{2}", {"Ti": 1, "O": 2}),
        ("TiO$_2$", {"Ti": 1, "O": 2}),
        ("Ti1.0O2.0", {"Ti": 1, "O": 2}),
        ("2TiO2", {"Ti": 2, "O": 4}),
        ("(NH4)2SO4", {"N": 2, "H": 8, "S": 1, "O": 4}),
        ("Ca10(PO4)6(OH)2", {"Ca": 10, "P": 6, "O": 26, "H": 2}),
        ("[Cu(NH3)4]SO4", {"Cu": 1, "N": 4, "H": 12, "S": 1, "O": 4}),
        ("K4{Fe(CN)6}", {"K": 4, "Fe": 1, "C": 6, "N": 6}),
        ("CaSO4·2H2O", {"Ca": 1, "S": 1, "O": 6, "H": 4}),
        ("CaSO4.2H2O", {"Ca": 1, "S": 1, "O": 6, "H": 4}),
        ("CaSO₄ • 2 H₂O", {"Ca": 1, "S": 1, "O": 6, "H": 4}),
        ("Na2CO3*10H2O", {"Na": 2, "C": 1, "O": 13, "H": 20}),
        ("Al2(SO4)3.16H2O", {"Al": 2, "S": 3, "O": 28, "H": 32}),
        ("MgO.Al2O3", {"Mg": 1, "O": 4, "Al": 2}),
        ("CH3COOH", {"C": 2, "H": 4, "O": 2}),
        ("Co", {"Co": 1}),
        ("CO", {"C": 1, "O": 1}),
    ],
)
def test_people_write_freely(text, counts):
    assert parse(text) == counts


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("XyO2", r"Xy is not an element: did you mean .*Xe.*\?"),
        ("Jx", "Jx is not an element"),
        ("tio2", r"did you mean TiO2\?"),
        ("NACL", r"did you mean NaCl\?"),
        ("caco3", "CaCO3"),
        ("D2O", "deuterium.*write H"),
        ("PoO2", "Po .*no token"),
        ("Lr", "Lr .*no token"),
        ("Li0.5CoO2", "0.5 is not a whole number.*did you mean LiCo2O4"),
        ("Ti0.5Zr0.5O2", "did you mean TiZrO4"),
        ("Fe0.7Ni0.3", "did you mean Fe7Ni3"),
        ("LiNi1/3Mn1/3Co1/3O2", "1/3 is not a whole number.*did you mean Li3NiMnCoO6"),
        ("YBa2Cu3O6.93", "6.93 is not a whole number of atoms: multiply"),
        ("Li1/0O", "1/0 is not a whole number"),
        ("Fe2O3/SiO2", "not a formula at '/SiO2'"),
        ("Al2O3.2SiO2", "3.2 is not a whole number.*'·'"),
        ("Ti0O2", "0 atoms"),
        ("Ti02", "letter O"),
        ("Ti1000000000O2", "1000000000 atoms"),
        ("Ti" + "9" * 400, "more than a cell may hold"),
        ("(Ti2000)2000", "at most 2000"),
        ("Ti2000O2000", "at most 2000"),
        ("T" * 501, "501 characters"),
        ("(NH4SO4", "not closed"),
        ("NH4)2SO4", "was not opened"),
        ("(NH4]2SO4", "was not opened"),
        ("()2Ti", "empty bracket"),
        ("CaSO4 2H2O", "two numbers in a row"),
        ("SO4 2-", "charges .*neutral cell in whole numbers"),
        ("CaSO4·", "without an element"),
        ("42", "without an element"),
        ("(2Ti)O2", "does not follow an element"),
        ("NH4+", "charges"),
        ("Fe3+", "charges .*neutral cell in whole numbers, such as Fe2O3"),
        ("Li1-xCoO2", "charges and ranges"),
        ("TiO2!", "not a formula at '!'"),
        ("Ti\nO2;", "not a formula at ';'"),
        ("rutile", "not a formula"),
    ],
)
def test_what_is_no_formula_is_refused_in_one_line(text, says):
    with pytest.raises(InputError, match=says) as caught:
        cell(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(("formula", "units"), [("Hg2Cl2", 2), ("C6H12O6", 6), ("H12C6O6", 6), ("Al2Cl6", 2)])
def test_well_known_molecules_are_not_reduced(formula, units):
    assert molecule_units(formula) == units
    assert cell(formula).z == units  # by its Z, as in a CIF
    for other in ("HgCl", "CH2O", "Ti2O4", "Hg4Cl4"):
        assert molecule_units(other) == 1


def test_without_z_the_cell_is_as_written():
    made = cell("Ti2O4")
    assert made.composition == (("Ti", 2), ("O", 4))
    assert (made.reduced_formula, made.z, made.formula, made.n_atoms) == ("TiO2", 2, "Ti2O4", 6)
    assert made.note == "cell as written: Ti2O4 = 2 x TiO2"
    assert cell("TiO2").note == "cell as written: TiO2"


@pytest.mark.parametrize("formula", ["TiO2", "Ti2O4", "Ti3O6"])
def test_z_counts_reduced_formula_units_however_the_formula_is_written(formula):
    made = cell(formula, z=2)
    assert made.composition == (("Ti", 2), ("O", 4))
    assert made.z == 2
    assert made.note.startswith("z = 2: cell Ti2O4 = 2 x TiO2")
    assert ("formula unit" in made.note) == (formula != "TiO2")


@pytest.mark.parametrize(
    ("formula", "z", "cell_formula", "unit"),
    [("O2", 2, "O4", "O2"), ("Na2O2", 1, "Na2O2", "Na2O2"), ("NaO", 1, "NaO", "NaO"), ("N2", 4, "N8", "N2")],
)
def test_molecules_of_two_and_peroxides_stay_whole(formula, z, cell_formula, unit):
    made = cell(formula, z=z)
    assert (made.formula, made.reduced_formula) == (cell_formula, unit)


@pytest.mark.parametrize(
    "text",
    ["Li-Fe-O", "O-Fe-Li", "Li,Fe, O", "Li Fe O", "LiFeO", "Li\N{EN DASH}Fe\N{EN DASH}O", " Li-Fe-O-Li "],
)
def test_a_chemical_system_is_its_elements_however_they_are_written(text):
    assert system(text) == ("Li", "Fe", "O")


@given(st.text(max_size=40))
def test_any_text_is_a_chemical_system_or_an_input_error(text):
    try:
        found = system(text)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert found
        assert set(found) <= set(elements.symbols())


def test_elements_stand_by_rising_electronegativity():
    assert cell("O3TiSr").formula == "SrTiO3"
    assert cell("ClNa").reduced_formula == "NaCl"


@pytest.mark.parametrize("z", [0, -1, True, 1.5, "2"])
def test_z_is_a_whole_number_from_one(z):
    with pytest.raises(InputError, match="formula units: write a whole number"):
        cell("TiO2", z=z)


def test_a_billion_formula_units_are_refused():
    with pytest.raises(InputError, match=f"at most {MAX_ATOMS}"):
        cell("TiO2", z=10**9)


@given(st.dictionaries(st.sampled_from(elements.symbols()), st.integers(1, 40), min_size=1, max_size=8))
def test_a_cell_formula_reads_back_as_the_same_cell(counts):
    made = cell("".join(f"{symbol}{count}" for symbol, count in counts.items()))
    assert dict(made.composition) == counts
    assert cell(made.formula) == made
    again = cell(made.reduced_formula, z=made.z)
    assert again.composition == made.composition


@given(st.text(max_size=60))
def test_any_text_is_a_formula_or_an_input_error(text):
    try:
        counts = parse(text)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert counts
        assert all(count > 0 for count in counts.values())


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("CH3NH3PbI3", "H6PbI3CN"),
        ("CI4", "I4C"),
        ("C2I4", "I2C"),
        ("InC", "InC"),
        ("Ir3C", "Ir3C"),
        ("SCI2", "CSI2"),
    ],
)
def test_carbon_and_iodine_are_never_shown_as_chlorine(written, shown):
    made = cell(written, 1)
    assert made.reduced_formula == made.formula == shown
    assert shown in made.note


def test_counts_of_one_are_not_shown():
    assert short({"Ba": 1, "In": 9, "Ir": 2}) == "BaIn9Ir2"
    assert short({"H": 6, "Pb": 1, "C": 1, "I": 3, "N": 1}) == cell("CH3NH3PbI3").formula == "H6PbI3CN"
    assert short({"Na": 0.5, "K": 0.5, "Cl": 1.0, "O": 0}) == "Na0.5K0.5Cl"
    assert short({"Ti": 11, "O": 1}) == "Ti11O"


def test_atoms_are_named_by_rising_electronegativity_and_those_without_one_last():
    assert of_atoms({"O": 3.0, "Ti": 1.0, "Ca": 1.0}) == "CaTiO3"
    assert of_atoms({"Po": 1, "He": 2, "F": 1, "Rn": 1}) == "FHe2PoRn"
