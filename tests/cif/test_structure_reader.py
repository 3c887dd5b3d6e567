"""Any CIF is read as it is meant, or rejected with the reason; see also tests/integration/test_reading.py."""

from __future__ import annotations

import gemmi
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from crystallm.cif import standard_structure, structure_reader, writer
from crystallm.errors import CrystallmError, TextError
from real_crystals import published

CUBE = {
    "length_a": 5.64,
    "length_b": 5.64,
    "length_c": 5.64,
    "angle_alpha": 90,
    "angle_beta": 90,
    "angle_gamma": 90,
}
SALT = (("Na1", "Na", 0, 0, 0), ("Cl1", "Cl", 0.5, 0.5, 0.5))
COLUMNS = (
    "label",
    "type_symbol",
    "fract_x",
    "fract_y",
    "fract_z",
    "occupancy",
    "disorder_group",
    "calc_flag",
)


def cif_of(group="F m -3 m", rows=SALT, more="", cell=CUBE, operators=()):
    """A CIF with rows of atoms; columns of the longest row."""
    lines = ["data_x", *(f"_cell_{name} {value}" for name, value in cell.items()), more]
    if group:
        lines.append(f"_space_group_name_H-M_alt '{group}'")
    if operators:
        lines += ["loop_", "_space_group_symop_operation_xyz", *(f"'{xyz}'" for xyz in operators)]
    lines += ["loop_", *(f"_atom_site_{name}" for name in COLUMNS[: len(rows[0])])]
    lines += [" ".join(map(str, row)) for row in rows]
    return "\n".join(lines) + "\n"


def same(one, other, tolerance=0.0):
    """Equal to the last bit, since a text's digits depend on it; or within a tolerance."""
    return (
        np.array_equal(one.lattice.matrix, other.lattice.matrix)
        and np.allclose(one.frac_coords, other.frac_coords, rtol=0, atol=tolerance)
        and [s.symbol for s in one.species] == [s.symbol for s in other.species]
    )


def test_real_crystals_have_the_atoms_that_pymatgen_finds():
    for row in published()[::10]:
        for text, tolerance in ((row["cif"], 0.0), (writer.to_cif(row["text"]), 1e-7)):
            assert same(structure_reader.structure(text), Structure.from_str(text, fmt="cif"), tolerance)


def test_a_standard_text_is_the_crystal_that_it_means():
    for row in published()[:20]:
        assert same(structure_reader.structure(row["text"]), standard_structure.to_structure(row["text"]))


@pytest.mark.parametrize("text", ["", "noise", "data_x\n_cell_length_a 3\n", "data_x\nloop_\n_a\n_b\n1\n"])
def test_what_is_no_crystal_is_one_line(text):
    with pytest.raises(CrystallmError) as caught:
        structure_reader.structure(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "n_atoms"),
    [
        ("", 8),
        ("_chemical_formula_sum 'Cl Na'\n_cell_formula_units_Z 4", 8),
        ("_chemical_formula_sum 'Cl4 Na4'\n_cell_formula_units_Z 4", 8),  # as pymatgen writes it
        ("_chemical_formula_sum 'Cl4 Na4'\n_cell_formula_units_Z 1", 8),
        ("_chemical_formula_sum 'Cl4 Na4'\n_cell_formula_units_Z 0", 8),  # likewise, of half of Na2O2
        ("_chemical_formula_sum 'Na0.5 Cl0.5'", 8),
        ("_chemical_formula_sum ?\n_cell_formula_units_Z ?", 8),
    ],
)
def test_the_printed_formula_agrees(more, n_atoms):
    assert len(structure_reader.structure(cif_of(more=more))) == n_atoms


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "_chemical_formula_sum 'Cl2 Na'",
            "are Cl4Na4, and the printed sum formula is Cl2Na: they contradict",
        ),
        ("_chemical_formula_sum 'Br Na'", "they contradict"),
        ("_chemical_formula_sum 'Cl Na'\n_cell_formula_units_Z 2", "Z = 2"),
    ],
)
def test_a_printed_formula_that_contradicts_the_atoms_is_an_error(more, message):
    with pytest.raises(TextError, match=message):
        structure_reader.read(cif_of(more=more))


@pytest.mark.parametrize("n_atoms", [1, 2, 3])
def test_the_z_that_pymatgen_writes_of_elements_with_diatomic_molecules_agrees(n_atoms):
    oxygen = Structure(Lattice.cubic(4), ["O"] * n_atoms, [[0.3 * i, 0, 0] for i in range(n_atoms)])
    text = oxygen.to(fmt="cif")
    assert f"_cell_formula_units_Z   {n_atoms // 2}\n" in text  # of O2: 0 of one atom
    assert len(structure_reader.structure(text)) == n_atoms


@pytest.mark.parametrize(
    ("group", "rows", "more", "found"),
    [
        ("F m 3 m", SALT, "", "NaCl"),
        ("F 4/m -3 2/m", SALT, "", "NaCl"),
        ("fm-3m", SALT, "", "NaCl"),
        ("F_m_-3_m", SALT, "", "NaCl"),
        ("", SALT, "_symmetry_Int_Tables_number 225", "NaCl"),
        ("", SALT, "_symmetry_Int_Tables_number 999", "'999' is not the number of a space group"),
        ("P 99", SALT, "", "'P 99' is not known"),
        ("P 21/c", SALT, "_symmetry_Int_Tables_number 225", "is no. 14, and 225 is printed"),
        ("F m -3 m", (("Na1", "NA+1", 0, 0, 0), ("Cl1", "CL-1", 0.5, 0.5, 0.5)), "", "NaCl"),
        ("F m -3 m", (("Na1", "Na(I)", 0, 0, 0),), "", "'Na(I)' is not an element"),
        ("F m -3 m", (("Li1", "Li", 0, 0, 0), ("T1", "T", 0.5, 0.5, 0.5)), "", "may be tritium"),
        ("F m -3 m", (("Na1", "Na", 7, -3, 0), ("Cl1", "Cl", "1.5", "-.5", "5.0E-1")), "", "NaCl"),
        ("F m -3 m", (("Na1", "Na", "nan", 0, 0),), "", "x of Na1 is 'nan', which is not a number"),
        ("F m -3 m", (("Na1", "Na", "1e999", 0, 0),), "", "x of Na1 is '1e999', which is not a number"),
        ("F m -3 m", (("Na1", "Na", "1_0", 0, 0),), "", "x of Na1 is '1_0', which is not a number"),
        ("F m -3 m", SALT, "_chemical_formula_sum 'NA CL'", "NaCl"),
        ("F m -3 m", SALT, "_chemical_formula_sum '(Na Cl)2'", "NaCl"),
        ("F m -3 m", SALT, "_chemical_formula_sum 'K (Cl O4)'", "they contradict each other"),
        ("F m -3 m", SALT, "_chemical_formula_sum 'Na Cl-x'", "sum formula 'Na Cl-x' cannot be read"),
        ("F m -3 m", SALT, "_symmetry_space_group_name_Hall '-P 4 2 3'", "contradict each other"),
    ],
)
def test_spellings_of_one_crystal_and_what_is_none(group, rows, more, found):
    try:
        reading = structure_reader.read(cif_of(group, rows, more))
    except TextError as error:
        assert found in str(error)  # noqa: PT017
    else:
        assert len(reading.structure) == 8
        assert found == reading.structure.composition.reduced_formula or found in str(reading.notes)


SILICON = (("Si1", "Si", 0.125, 0.125, 0.125),)


def test_an_open_origin_is_decided_by_the_formula_or_an_error():
    found = structure_reader.read(
        cif_of("F d -3 m", SILICON, "_chemical_formula_sum Si\n_cell_formula_units_Z 8")
    )
    assert len(found.structure) == 8
    assert found.notes == ("F d -3 m:2 is taken of F d -3 m:1 or F d -3 m:2",)
    with pytest.raises(TextError, match="may mean F d -3 m:1 or F d -3 m:2: add the origin"):
        structure_reader.read(cif_of("F d -3 m", SILICON))
    with pytest.raises(TextError, match="neither agrees"):
        structure_reader.read(
            cif_of("F d -3 m", SILICON, "_chemical_formula_sum Si\n_cell_formula_units_Z 3")
        )


def test_the_cell_decides_between_axes():
    rows = (("Ba1", "Ba", 0, 0, 0), ("S1", "S", 0.2, 0.1, 0.5))
    axes = {"angle_alpha": "c", "angle_beta": "b", "angle_gamma": "c"}
    for angle in ("angle_beta", "angle_gamma"):
        cell = CUBE | {"length_b": 4.1, "length_c": 3.2, angle: 100}
        found = structure_reader.structure(cif_of("P 2/m", rows, cell=cell))
        assert found.composition.reduced_formula == ("BaS2" if axes[angle] == "c" else "BaS4")
    notes = structure_reader.read(cif_of("P 2/m", rows, cell=CUBE | {"length_b": 4.1})).notes
    assert notes == ("P 1 2/m 1 is taken of P 1 2/m 1 or P 1 1 2/m or P 2/m 1 1",)


LISTED = tuple(
    (f"{symbol}{i}", symbol, *point)
    for symbol, shift in (("Na", 0), ("Cl", 0.5))
    for i, point in enumerate(
        [(shift, 0, 0), (shift, 0.5, 0.5), (0.5 - shift, 0.5, 0), (0.5 - shift, 0, 0.5)]
    )
)


def test_a_list_of_all_atoms_is_not_multiplied():
    listed = cif_of(rows=LISTED, operators=("x, y, z",))
    assert len(structure_reader.structure(listed)) == 8
    agreeing = cif_of(more="_chemical_formula_sum 'Cl Na'\n_cell_formula_units_Z 1", operators=("x,y,z",))
    assert len(structure_reader.structure(agreeing)) == 2
    with pytest.raises(TextError, match="the identity is the only operator, P 63/m m c is printed"):
        structure_reader.read(cif_of("P 63/m m c", operators=("x,y,z",)))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((("Na1", "Na", "?", 0, 0),), "coordinate x of Na1 is missing"),
        ((("Na1", "Na", 0, ".", 0),), "coordinate y of Na1 is missing"),
        ((("Na1", "Na", 0, 0, "1/2"),), "coordinate z of Na1 is '1/2'"),
        ((("M1", "M", 0, 0, 0),), "the type of M1: 'M' is not an element"),
        ((("Na1", "Na", 0, 0, 0, 1.2),), "the occupancy of Na1 is 1.2"),
        ((("Na1", "Na", 0, 0, 0, -0.2),), "the occupancy of Na1 is -0.2"),
        ((("Na1", "Na", 0, 0, 0), ("K1", "K", 0, 0, 0)), "Na1 and K1 share one place"),
        ((("Na1", "Na", 0, 0, 0), ("K1", "K", "0.0080", 0, 0)), "Na1 and K1 are on top of each other"),
        ((("Na1", "Na", 0, 0, 0, 1, 1), ("Cl1", "Cl", 0.5, 0.5, 0.5, 1, 2)), "disorder groups"),
        ((("Na1", "Na", 0, 0, 0, 1, ".", "dum"),), "it has no atoms"),
    ],
)
def test_rows_that_are_no_atoms_are_errors(rows, message):
    with pytest.raises(TextError, match=message):
        structure_reader.read(cif_of(rows=rows))


def test_atoms_that_are_listed_twice_are_one_with_a_note():
    found = structure_reader.read(cif_of(rows=(*SALT, ("Na2", "Na", 0.5, 0.5, 0))))
    assert len(found.structure) == 8
    assert found.notes == ("Na2 is Na1 again, or an image of it",)


def test_empty_sites_dummies_and_occupancies_that_are_not_given():
    rows = (("Na1", "Na", 0, 0, 0, "?", ".", "."), ("Cl1", "Cl", 0.5, 0.5, 0.5, ".", ".", "d"))
    rows += (("X1", "X", 0.2, 0.2, 0.2, 0, ".", "."), ("C1", "Cnt", 0.3, 0.3, 0.3, 1, ".", "dum"))
    found = structure_reader.read(cif_of(rows=rows))
    assert len(found.structure) == 8
    assert found.notes == ("2 rows are dummies or empty sites, and left out",)


def test_partly_empty_and_shared_sites_stay():
    found = structure_reader.structure(cif_of(rows=(("Na1", "Na", 0, 0, 0, 0.6), ("K1", "K", 0, 0, 0, 0.4))))
    assert found[0].species.as_dict() == {"Na": 0.6, "K": 0.4}
    deuterated = (("H1", "H", 0, 0, 0, 0.35), ("D1", "D", 0, 0, 0, 0.65))
    assert structure_reader.structure(cif_of(rows=deuterated)).is_ordered


def test_a_cell_that_does_not_fit_its_group_is_an_error():
    with pytest.raises(TextError, match=r"does not fit its symmetry \(F m -3 m\)"):
        structure_reader.read(cif_of(cell=CUBE | {"length_c": 6}))
    with pytest.raises(TextError, match="no cell has these"):
        structure_reader.read(cif_of("P 1", cell=CUBE | {"angle_gamma": 180}))
    with pytest.raises(TextError, match="_cell_angle_alpha is missing"):
        structure_reader.read(cif_of(cell=CUBE | {"angle_alpha": "?"}))


def test_a_huge_crystal_is_an_error_before_it_is_expanded():
    rng = np.random.default_rng(0)
    rows = tuple((f"O{i}", "O", *(round(x, 4) for x in rng.random(3))) for i in range(600))
    with pytest.raises(TextError, match="600 atoms times 192 operators"):
        structure_reader.read(cif_of(rows=rows))


# -- any setting ---------------------------------------------------------------------------------------------

GROUPS = [group for group in gemmi.spacegroup_table() if group.hall]


def crystal_in(group, rng):
    """A crystal with the symmetry of a setting: cell, and rows on a general and a random special position."""
    operators = np.array([np.column_stack([op.rot, op.tran]) for op in group.operations()]) / 24
    metric = np.cov(rng.normal(size=(3, 12))) * 30 + np.diag([20.0, 25, 30])
    metric = np.mean([r.T @ metric @ r for r in operators[:, :, :3]], axis=0)
    lengths = np.sqrt(np.diag(metric))
    angles = [
        np.degrees(np.arccos(metric[i, j] / lengths[i] / lengths[j])) for i, j in ((1, 2), (0, 2), (0, 1))
    ]
    point = rng.random(3).round(4)
    fixing = operators[rng.integers(len(operators))]
    special = point + ((fixing[:, :3] @ point + fixing[:, 3] - point + 0.5) % 1 - 0.5) / 2
    rows = {"Ba": point, "O": special.round(4)}
    images = {symbol: operators[:, :, :3] @ x + operators[:, :, 3] for symbol, x in rows.items()}
    return Lattice.from_parameters(*lengths, *angles), rows, images


@given(st.sampled_from(GROUPS), st.integers(0, 2**32 - 1))
def test_a_crystal_in_any_setting_reads_back_by_operators_hall_symbol_and_symbol(group, seed):
    lattice, rows, images = crystal_in(group, np.random.default_rng(seed))
    cell = dict(zip(CUBE, lattice.parameters, strict=True))
    atoms = [(f"{symbol}1", symbol, *x) for symbol, x in rows.items()]
    named = cif_of(group.xhm(), atoms, cell=cell)
    texts = [cif_of("", atoms, cell=cell, operators=[op.triplet() for op in group.operations()])]
    texts.append(cif_of("", atoms, f"_space_group_name_Hall '{group.hall}'", cell))
    for text in [*texts, named]:
        try:
            found = structure_reader.structure(text)
        except TextError as error:
            # Random atoms may be too near each other to be told from one.
            assert "on top of" in str(error) or "share one place" in str(error)  # noqa: PT017
            continue
        for symbol, expected in images.items():
            points = found.frac_coords[[i for i, s in enumerate(found.species) if s.symbol == symbol]]
            apart = expected[:, None] - points[None]
            apart -= np.rint(apart)
            far = np.linalg.norm(apart @ lattice.matrix, axis=2)
            assert far.min(axis=1).max() < 0.03
            assert far.min(axis=0).max() < 0.03
