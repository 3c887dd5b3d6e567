"""The evaluate command in tests, and a CIF by ASE."""

from __future__ import annotations

import json

from crystallm.cli.app import run

ASE_ROCKSALT = """data_image0
_chemical_formula_structural       NaCl
_chemical_formula_sum              "Na1 Cl1"
_cell_length_a       3.988
_cell_length_b       3.988
_cell_length_c       3.988
_cell_angle_alpha    60.0
_cell_angle_beta     60.0
_cell_angle_gamma    60.0
_space_group_name_H-M_alt    "P 1"
_space_group_IT_number       1
loop_
  _space_group_symop_operation_xyz
  'x, y, z'
loop_
  _atom_site_type_symbol
  _atom_site_label
  _atom_site_symmetry_multiplicity
  _atom_site_fract_x
  _atom_site_fract_y
  _atom_site_fract_z
  _atom_site_occupancy
  Na  Na1       1.0  0.00000  0.00000  0.00000  1.0000
  Cl  Cl1       1.0  0.50000  0.50000  0.50000  1.0000
"""


def judged(capsys, *arguments) -> dict[str, object]:
    assert run(["evaluate", *map(str, arguments), "--json", "--workers", "1"]) == 0
    return json.loads(capsys.readouterr().out)
