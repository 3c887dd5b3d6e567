"""Frames of extended XYZ files."""

from __future__ import annotations

import pytest

from crystallm.errors import InputError
from crystallm.sources.collection import read

FRAME = '1\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 {}\nPo 0 0 0\n'


def test_frames_have_the_ids_and_splits_of_their_comments(tmp_path):
    (tmp_path / "x.extxyz").write_text(FRAME.format("id=first split=val") + FRAME.format(""))
    first, second = read(tmp_path / "x.extxyz")
    assert (first.id, first.split, first.format) == ("first", "val", "extxyz")
    assert (second.id, second.split) == ("1", "")
    assert second.text == FRAME.format("")


def test_a_frame_without_a_number_of_atoms_is_one_line(tmp_path):
    (tmp_path / "x.extxyz").write_text(FRAME.format("") + "many\n")
    with pytest.raises(InputError, match="x.extxyz"):
        list(read(tmp_path / "x.extxyz"))
