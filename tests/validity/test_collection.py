"""Checks of a whole collection."""

from __future__ import annotations

import json

import pytest

from conftest import textbook
from crystallm.cif import writer
from crystallm.cli.app import run
from crystallm.errors import CrystallmError
from crystallm.sources.entry import Entry
from crystallm.validity import collection

pytestmark = pytest.mark.usefixtures("kept")


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


def test_a_lost_worker_costs_one_verdict(monkeypatch):
    monkeypatch.setattr(collection, "SECONDS", 1e-4)
    row, other = collection.check_entries(
        [Entry("a", writer.to_text(textbook()["rutile"])), Entry("b", None, "why")]
    )
    assert row["reasons"].startswith("not judged: took longer")
    assert other["reasons"] == "not read: why"
    assert not row["valid"] and not other["valid"]  # noqa: PT018 - one claim on both


def test_reasons_are_added_up_by_kind():
    texts = [writer.to_text(structure) for structure in textbook().values()]
    wrong = [text.replace(" 1.0\n", " 0.5\n") for text in texts]
    rows = collection.check_entries([Entry(str(i), text) for i, text in enumerate([*texts, *wrong])])
    summary = collection.summarise(rows)
    assert summary.counts["valid"] == len(texts)
    assert max(summary.reasons.values()) >= 3
    assert summary.record()["shares"]["valid"] == 0.5
    with pytest.raises(CrystallmError, match="no crystal"):
        collection.summarise([])


def test_the_digest_of_a_file_without_names_is_that_of_what_it_says():
    here, there = Entry("here", ASE_ROCKSALT), Entry("there", ASE_ROCKSALT)
    other = Entry("here", ASE_ROCKSALT.replace("Na1 Cl1", "Na1 Br1"))
    assert collection.survey([here]) != collection.survey([there])
    assert collection.survey([here], named=False) == collection.survey([there], named=False)
    assert collection.survey([here], named=False) != collection.survey([other], named=False)
    assert collection.survey([here, there], named=False)[0] == 2
