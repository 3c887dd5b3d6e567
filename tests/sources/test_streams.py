"""Files as bounded streams."""

from __future__ import annotations

import bz2
import gzip
import lzma

import pytest

from crystallm.errors import InputError
from crystallm.sources import streams


def test_packed_files_are_streams_of_their_content(tmp_path):
    for name, content in {"a.gz": gzip.compress(b"x"), "b": b"x"}.items():
        (tmp_path / name).write_bytes(content)
        with streams.binary(tmp_path / name) as stream:
            assert stream.read() == b"x"
    for pack in (gzip.compress, bz2.compress, lzma.compress, bytes):
        (tmp_path / "any").write_bytes(pack(b"content"))
        with streams.by_content(tmp_path / "any") as stream:
            assert stream.read() == b"content"


def test_a_file_that_unpacks_to_too_much_is_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "FREE_BYTES", 1000)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(1_000_000)))
    with (
        pytest.raises(InputError, match="unpacks to more than 200 times"),
        streams.binary(tmp_path / "bomb.gz") as s,
    ):
        s.read()


def test_a_damaged_file_is_one_line(tmp_path):
    (tmp_path / "cut.gz").write_bytes(gzip.compress(bytes(1000))[:-9])
    with pytest.raises(InputError, match="is it truncated?"), streams.binary(tmp_path / "cut.gz") as stream:
        stream.read()


def test_lines_are_bounded(tmp_path):
    (tmp_path / "x").write_bytes(b"ab\ncd\nefgh")
    with streams.binary(tmp_path / "x") as stream:
        assert list(streams.lines(stream, tmp_path / "x", 4)) == [b"ab\n", b"cd\n", b"efgh"]
    with streams.binary(tmp_path / "x") as stream, pytest.raises(InputError, match="a line of more than"):
        list(streams.lines(stream, tmp_path / "x", 3))
