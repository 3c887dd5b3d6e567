"""Properties: numbers of collections and of crystals, missing ones among them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pyarrow import parquet

from crystallm.datasets import prepare, properties, shards
from crystallm.datasets.options import PrepareOptions
from crystallm.errors import InputError
from prepared import write_csv

GAPS = ["8.5", "3.0", "", "3.4", "nan"]
"""Of rock salt, rutile, perovskite, wurtzite and diamond; two are missing."""


def with_gaps(tmp_path, cifs, gaps=GAPS):
    rows = [(name, cif, gap) for (name, cif), gap in zip(cifs.items(), gaps, strict=True)]
    return write_csv(tmp_path / "book.csv", rows, ("material_id", "cif", "band_gap"))


def given(**fields):
    return PrepareOptions(split_by="given", **fields)


def check_gaps(folder):
    values = shards.load_properties(folder, "train", ("band_gap",))[:, 0]
    np.testing.assert_array_equal(values, [8.5, 3.0, np.nan, 3.4, np.nan])


def test_a_column_of_numbers_is_kept_with_its_unit_and_missing_values(tmp_path, cifs):
    report = prepare.prepare([with_gaps(tmp_path, cifs)], tmp_path / "data", given(properties=("band_gap",)))
    check_gaps(tmp_path / "data")
    found = report.properties["band_gap"]
    assert (found["unit"], found["n"], found["min"], found["max"]) == ("eV", 3, 3.0, 8.5)
    rows = parquet.read_table(tmp_path / "data" / "rows.parquet").to_pylist()
    assert [row["band_gap"] for row in rows] == [8.5, 3.0, None, 3.4, None]
    assert "band_gap" in (tmp_path / "data" / "report.html").read_text(encoding="utf-8")


def test_density_and_volume_need_no_column(tmp_path, cifs, textbook_structures):
    prepare.prepare([with_gaps(tmp_path, cifs)], tmp_path / "data", given())
    values = shards.load_properties(tmp_path / "data", "train", ("volume_per_atom", "density"))
    for (volume, density), structure in zip(values, textbook_structures.values(), strict=True):
        assert volume == pytest.approx(structure.volume / len(structure), rel=1e-4)
        assert density == pytest.approx(structure.density, rel=1e-4)


def test_a_table_gives_the_properties_of_files(tmp_path, cifs):
    (tmp_path / "cifs").mkdir()
    for name, cif in cifs.items():
        (tmp_path / "cifs" / f"{name}.cif").write_text(cif)
    table = write_csv(tmp_path / "gaps.csv", zip(cifs, GAPS, strict=True), ("id", "band_gap"))
    options = given(properties=("band_gap:eV",), property_table=table)
    prepare.prepare([str(tmp_path / "cifs")], tmp_path / "data", options)
    rows = parquet.read_table(tmp_path / "data" / "rows.parquet").to_pylist()
    known = {name: properties.number(gap, "") for name, gap in zip(cifs, GAPS, strict=True)}
    assert {row["id"]: row["band_gap"] for row in rows} == known


def test_members_of_json_lines_are_columns_too(tmp_path, cifs):
    path = tmp_path / "book.jsonl"
    lines = [
        json.dumps({"id": name, "cif": cif, "band_gap": properties.number(gap, "")})
        for (name, cif), gap in zip(cifs.items(), GAPS, strict=True)
    ]
    path.write_text("\n".join(lines) + "\n")
    prepare.prepare([str(path)], tmp_path / "data", given(properties=("band_gap",)))
    check_gaps(tmp_path / "data")


@pytest.mark.parametrize(
    ("gaps", "options", "message"),
    [
        (["wide", *GAPS[1:]], {}, "row 0 .* band_gap = 'wide': a property is a number"),
        ([""] * 5, {}, "'band_gap': none of the 5 rows has a value"),
        (GAPS, {"properties": ("gap",)}, "'gap': none of the 5 rows has a value; name a column"),
        (GAPS, {"properties": ("band gap",)}, "property = 'band gap': a name has no blanks"),
        (GAPS, {"properties": ("formula",)}, "'formula': a data set has a column of that name"),
    ],
)
def test_impossible_properties_are_reported_in_one_line(tmp_path, cifs, gaps, options, message):
    path = with_gaps(tmp_path, cifs, gaps)
    if options.get("properties") == ("formula",):
        path = write_csv(tmp_path / "named.csv", [(cif, "1") for cif in cifs.values()], ("cif", "formula"))
    with pytest.raises(InputError, match=message) as error:
        prepare.prepare([path], tmp_path / "data", given(**{"properties": ("band_gap",), **options}))
    assert "\n" not in str(error.value)


def test_a_data_set_names_the_properties_that_it_has(tmp_path, cifs):
    prepare.prepare([with_gaps(tmp_path, cifs)], tmp_path / "data", given())
    with pytest.raises(InputError, match="no property 'band_gap' in .*: there are density, volume_per_atom"):
        shards.load_properties(tmp_path / "data", "train", ("band_gap",))
    assert shards.property_units(tmp_path / "data")["density"] == "g/cm^3"


@pytest.mark.parametrize("text", ["", "NaN", "none", "N/A", "-", None])
def test_missing_values_have_many_spellings(text):
    assert properties.number(text, "gap") is None


@pytest.mark.parametrize("text", ["inf", "1,5", True, "semiconductor"])
def test_a_value_is_a_number(text):
    with pytest.raises(InputError, match="gap = "):
        properties.number(text, "gap")
