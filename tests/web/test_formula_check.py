"""Interpretation of a formula while it is typed."""

from __future__ import annotations

from urllib.parse import quote

import pytest


def test_a_formula_has_cell_groups_and_misfits(served):
    found = served.get("/api/v1/reading?formula=TiO2&z=2").json
    assert found["composition"] == [["Ti", 2], ["O", 4]]
    assert 136 in found["groups"]
    assert 225 not in found["groups"]
    assert "do not add up to 2 Ti" in found["misfits"]["225"]
    assert len(found["groups"]) + len(found["misfits"]) == 230
    held = served.get("/api/v1/reading?formula=TiO2&z=4&space_group=225").json
    assert held["z_possible"][0] == 4


def test_z_is_auto_for_a_reduced_formula_and_as_written_for_a_multiple(served):
    compound, cell = (served.get(f"/api/v1/reading?formula={name}").json for name in ("TiO2", "Ti2O4"))
    assert (compound["z"], compound["default_z"]) == (None, "auto")
    assert 225 in compound["groups"]  # with four formula units
    assert (cell["z"], cell["default_z"], cell["formula"]) == (2, None, "Ti2O4")
    assert 225 not in cell["groups"]
    state = served.done({"kind": "generate", "formula": "ZnS", "n": 1, "seed": 1})
    assert state["request"]["z"] == "auto"
    assert state["note"] == "ZnS, Z = 2 (100 %)"
    assert served.done({"kind": "generate", "formula": "Zn2S2", "n": 1, "seed": 1})["request"]["z"] is None


@pytest.mark.parametrize(
    ("written", "number"), [("Pbnm", 62), ("P2_1/n", 14), ("fm3m", 225), ("R-3m:H", 166), ("no. 62", 62)]
)
def test_a_space_group_is_accepted_in_any_setting(written, number, served):
    query = f"formula=CaF2&z=12&space_group={quote(written)}"
    assert served.get(f"/api/v1/reading?{query}").json["group"]["number"] == number


@pytest.mark.parametrize(
    ("query", "field", "message"),
    [
        ("formula=Xy2", "formula", "Xy is not an element"),
        ("formula=tio2", "formula", "did you mean"),
        ("formula=TiO2&z=0", "z", "whole number"),
        ("formula=TiO2&z=two", "z", "whole number"),
        ("formula=TiO2&z=2&space_group=225", "space_group", "cannot fill Fm-3m"),
        ("formula=TiO2&space_group=Fm7m", "space_group", "no space group 'Fm7m'"),
        ("formula=TiO2&space_group=231", "space_group", "no space group 231"),
        ("formula=TiO2&space_group=R-3m:R", "space_group", "no space group 'R-3m:R'"),
        ("formula=TiO2&z=200", "z", "600 atoms: this server allows at most 200"),
        ("formula=PoO2", "formula", "has no token"),
    ],
)
def test_a_wrong_formula_names_its_field(query, field, message, served):
    answer = served.get(f"/api/v1/reading?{query}")
    assert answer.status == 422
    assert answer.error["field"] == field
    assert message in answer.error["message"]
