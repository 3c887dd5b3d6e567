"""Head line, properties, group and cell of CIF texts."""

from __future__ import annotations

import pytest

from crystallm.cif import block as cif_block
from crystallm.cif import tokenizer, writer
from crystallm.errors import InputError
from crystallm.grammar.cif.state import CifGrammar
from walks import forced, offered


def test_all_that_follows_is_forced():
    state = CifGrammar("full", {"Ti": 2, "O": 4}, 136).start([])
    head = forced(state)
    assert head.startswith("data_Ti2O4\nloop_\n_atom_type_symbol\n")
    assert head.endswith("_symmetry_space_group_name_H-M P4_2/mnm\n_cell_length_a ")
    for token in tokenizer.encode("4.6000\n"):
        state.advance(token)
    assert forced(state) == "_cell_length_b 4.6000\n_cell_length_c "
    for token in tokenizer.encode("2.9600\n"):
        state.advance(token)
    rest = forced(state)
    assert "_cell_angle_gamma 90.0000\n_symmetry_Int_Tables_number 136\n" in rest
    assert "_chemical_formula_structural TiO2\n_chemical_formula_sum 'Ti2 O4'\n_cell_volume 62.63" in rest
    for token in tokenizer.encode("36\n"):
        state.advance(token)
    rest = forced(state)
    assert rest.startswith("_cell_formula_units_Z 2\n")
    # Two places for 2 Ti, and one multiplicity for them.
    assert rest.endswith("_atom_site_occupancy\nTi Ti0 2 ")
    assert tokenizer.decode(sorted(state.allowed())) == "0-"


RUTILE = "\n".join(
    (
        writer.head({"Ti": 2, "O": 4}.items()),
        *writer.properties(["Ti", "O"]),
        writer.group_line("P4_2/mnm"),
        "_cell_length_a 4.6000\n_cell_length_b 4.6000\n_cell_length_c 2.9600",
        "_cell_angle_alpha 90.0000\n_cell_angle_beta 90.0000\n_cell_angle_gamma 90.0000",
        "_symmetry_Int_Tables_number 136\n_chemical_formula_structural TiO2\n_chemical_formula_sum 'Ti2 O4'",
        "_cell_volume 62.6336\n_cell_formula_units_Z 2",
        "loop_\n_symmetry_equiv_pos_site_id\n_symmetry_equiv_pos_as_xyz\n1 'x, y, z'",
        "loop_",
        *cif_block.ATOM_LOOP,
        "Ti Ti0 2 0.0000 0.0000 0.",
    )
)


def test_the_volume_may_differ_by_its_rounding_only():
    rules = CifGrammar("full", {"Ti": 2, "O": 4}, 136)
    line = RUTILE.index("_cell_volume ")
    assert offered(rules, RUTILE[:line] + "_cell_volume 62.6") == "3"
    assert offered(rules, RUTILE[:line] + "_cell_volume 62.63") == "123456"
    with pytest.raises(InputError, match="is not allowed here"):
        rules.start(tokenizer.encode(RUTILE[:line] + "_cell_volume 62.64"))
