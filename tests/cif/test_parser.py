"""Broken texts get one error: the reason and the line."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crystallm.cif import parser, standard_structure, tokenizer, writer
from crystallm.errors import TextError
from real_crystals import published, rutile_text

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from crystallm.cif.parser import ParsedText


patient = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("data_Ti2O4", "Ti2O4", 1, "begins with 'Ti2O4'"),
        ("data_Ti2O4", "data_", 1, "without an element"),
        ("data_Ti2O4", "data_Ti2Q4", 1, "'Q' is not an element"),
        ("data_Ti2O4", "data_Ti2(OH)4", 1, "is not a composition"),
        ("data_Ti2O4", "data_Ti999999O4", 1, "999999 atoms of Ti"),
        (" P4_2/mnm", " P4_2/mno", 9, "no space group 'P4_2/mno'"),
        (" P4_2/mnm", "", 9, "has no value"),
        (" P4_2/mnm", " 'P4_2/mnm", 9, "stray quotation mark"),
        ("_symmetry_space_group_name_H-M P4_2/mnm\n", "", None, "name_H-M is missing"),
        ("_cell_length_b 4.5937\n", "", None, "_cell_length_b is missing"),
        ("length_b 4.5937", "length_a 4.5937", 11, "_cell_length_a occurs twice"),
        ("length_b 4.5937", "length_b 4.59.37", 11, "not a number"),
        ("length_b 4.5937", "length_b nan", 11, "not a number"),
        ("length_b 4.5937", "length_b -4.5937", 10, "no cell has"),
        ("angle_beta 90.0000", "angle_beta 190.0000", 10, "no cell has"),
        ("angle_beta 90.0000", "angle_beta 0.0000", 10, "no cell has"),
        ("Int_Tables_number 136", "Int_Tables_number 136.0", 16, "not a whole number"),
        ("1 'x, y, z'", "1 '-x, y, z'", 21, "symmetry operators"),
        ("1 'x, y, z'", "1 x, y, z", 24, "4 values where 2 belong"),
        ("O O1 4", "O O1 5", 34, "O1 at .* no position of multiplicity 5 of P4_2/mnm .* 4 images"),
        ("O O1 4", "O O1 16", 34, "has 4 images in P4_2/mnm .*, not 16"),
        ("O O1 4", "O O1 2", 34, "no position of multiplicity 2"),
        ("O O1 4", "Qq O1 4", 34, "is not an element"),
        ("O O1 4", "O O1 -4", 34, "not a whole number"),
        ("O O1 4", "O O1 4 4", 34, "8 values where 7 belong"),
        ("0.5000 1.0", "0.5000 0.5", 34, "occupancy 0.5"),
        ("0.5000 1.0", "0.5OOO 1.0", 34, "not a number"),
        ("_atom_site_fract_y\n", "", 32, "7 values where 6 belong"),
        ("\n\n", "\n\ndata_Na1", 36, "one crystal"),
    ],
)
def test_a_broken_text_is_refused_with_its_line(old: str, new: str, line: int | None, message: str) -> None:
    assert old in rutile_text()
    broken = rutile_text().replace(old, new, 1)
    for read in (standard_structure.to_structure, writer.to_cif):
        with pytest.raises(TextError, match=message) as caught:
            read(broken)
        assert caught.value.line == line
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n\n", "data_", "data_Na1Cl1", "# only a comment\n"])
def test_what_is_hardly_begun_is_refused(text: str) -> None:
    with pytest.raises(TextError):
        parser.parse(text)


def outcome(text: str) -> ParsedText | TextError:
    """What the readers say of a text: a result, or the one error."""
    try:
        structure = standard_structure.to_structure(text)
    except TextError as caught:
        error = caught
    else:
        return success(text, structure)
    with pytest.raises(TextError) as again:
        writer.to_cif(text)
    assert str(again.value) == str(error)
    return error


def success(text: str, structure: Structure) -> ParsedText:
    parsed = parser.parse(text)
    assert len(structure) == sum(row.multiplicity for row in parsed.rows)
    with contextlib.suppress(TextError):  # a single O is a structure, and half a formula unit
        assert standard_structure.to_structure(writer.to_cif(text)).composition == structure.composition
    return parsed


@given(st.text(max_size=400))
def test_any_string_is_read_or_refused(text: str) -> None:
    assert isinstance(outcome(text), TextError)


@patient
@given(st.data())
def test_any_beginning_of_a_text_is_read_or_refused(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(published()))["text"]
    outcome(text[: data.draw(st.integers(0, len(text)))])


@patient
@given(st.data())
def test_any_mutation_of_a_text_is_read_or_refused(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(published()))["text"]
    piece = st.one_of(
        st.text(max_size=8),
        st.sampled_from(["'", '"', "_", "loop_\n", "\n", "9" * 40, "1e9", "-", ".", "\x00", "٣", "P1"]),
        st.sampled_from(tokenizer.vocabulary()),
    )
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        stop = start + data.draw(st.integers(0, 12))
        text = text[:start] + data.draw(piece) + text[stop:]
    outcome(text)


@patient
@given(st.data())
def test_any_mixture_of_lines_is_read_or_refused(data: st.DataObject) -> None:
    lines = [line for i in (0, 100, 300) for line in published()[i]["text"].split("\n")]
    outcome("data_Na1\n" + "\n".join(data.draw(st.lists(st.sampled_from(lines), max_size=60))))


@pytest.mark.parametrize(
    "text",
    [
        "data_" + "Na1" * 60_000,
        "data_Na1\n" + "'" * 190_000,
        "data_Na1\n_x " + "' " * 90_000,
        "data_Na1\nloop_\n" + "".join(f"_t{i}\n" for i in range(20_000)),
        "x" * 10**7,
    ],
    ids=["head", "quotes", "open quotes", "tags", "long"],
)
def test_no_text_takes_long(text: str) -> None:
    start = time.process_time()
    with pytest.raises(TextError):
        standard_structure.to_structure(text)
    assert time.process_time() - start < 5
