"""Rows of crystals: by request, selected, and what they hold of the request."""

from __future__ import annotations

from crystallm.crystals.crystal import Crystal, Source
from crystallm.crystals.selection import SelectionOptions
from crystallm.crystals.table import COLUMNS, by_request, request_columns, select_rows
from crystallm.generation.request import Request
from crystallm.language import get_language


def rows(*values):
    return [
        {"request": request, "sample": sample, "rank": rank, "cluster": cluster, "plausible": plausible}
        for request, sample, rank, cluster, plausible in values
    ]


def test_rows_of_a_request_stand_together():
    found = rows((0, 0, None, None, True), (0, 1, None, None, True), (3, 0, None, None, True))
    assert [[row["sample"] for row in group] for group in by_request(iter(found))] == [[0, 1], [0]]


def test_the_best_of_each_cluster_are_selected_by_rank():
    found = rows((0, 0, 3, 0, True), (0, 1, 1, 0, True), (0, 2, 2, 1, True), (0, 3, None, None, False))
    kept = select_rows(found, SelectionOptions(best=2))
    assert [row["sample"] for row in kept] == [1, 2]
    assert [row["sample"] for row in select_rows(found, SelectionOptions(only_valid=True))] == [0, 1, 2]
    assert select_rows(found, SelectionOptions()) == found


def test_columns_are_those_of_the_request_and_of_the_crystal():
    request = Request(formula="TiO2", z="auto", space_group="136")
    columns = request_columns(request)
    assert columns == {
        "requested_formula": "TiO2",
        "requested_elements": None,
        "requested_z": None,
        "requested_space_group": "136",
        "prompt": None,
    }
    language = get_language("orbits")
    ids = language.ids("<crystal> Ti 2 O 4 (P4_2/mnm) Ti 2a O 4f V-5 .7 c-9 .3 0.30 2' <end>")
    row = Crystal(language, ids, source=Source("m", 1, 5, "TiO2")).row()
    assert row.keys() <= COLUMNS.keys()
    assert columns.keys() <= COLUMNS.keys()
    assert (row["formula"], row["z"], row["space_group_number"], row["sample_index"]) == ("Ti2O4", 2, 136, 5)
