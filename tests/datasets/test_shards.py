from __future__ import annotations

import json

import numpy as np
import pytest

from crystallm.datasets import shards
from crystallm.errors import InputError
from crystallm.storage import run_folder
from real_crystals import write_split


@pytest.fixture
def folder(tmp_path):
    """A data set of three crystals, one of them empty."""
    place = tmp_path / "data"
    write_split(place, "train", [[1, 2, 3], [], [65535]])
    write_split(place, "val", [])
    (place / run_folder.FACTS).write_text('{"language": "orbits", "vocab_size": 65536}')
    return place


def test_what_was_written_is_read(folder):
    split = shards.load(folder, "train")
    assert [split.crystal(i).tolist() for i in range(len(split))] == [[1, 2, 3], [], [65535]]
    assert split.lengths.tolist() == [3, 0, 1]
    assert (split.language, split.vocab_size) == ("orbits", 65536)
    assert (folder / "train.bin").read_bytes() == bytes([1, 0, 2, 0, 3, 0, 255, 255])
    assert len(shards.load(folder, "val")) == 0
    assert sorted(path.name for path in folder.parent.iterdir()) == ["data"]


@pytest.mark.parametrize("content", [b"\x01\x00" * 3, b"\x01\x00" * 5, b"\x01" * 7, b""])
def test_a_stream_that_does_not_fit_its_index_is_refused(folder, content):
    (folder / "train.bin").write_bytes(content)
    with pytest.raises(InputError, match=f"train.bin .* has {len(content)} bytes, not 8: truncated"):
        shards.load(folder, "train")


@pytest.mark.parametrize(
    "index",
    [
        np.array([0, 3, 2, 4]),
        np.array([1, 4]),
        np.array([], dtype=np.int64),
        np.array([[0, 4]]),
        np.array([0.0, 4.0]),
        np.array(4),
    ],
)
def test_an_index_that_is_none_is_refused(folder, index):
    np.save(folder / "train.idx.npy", index)
    with pytest.raises(InputError, match="train.idx.npy .* is not an index of crystals"):
        shards.load(folder, "train")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"noise" * 99])
def test_a_damaged_index_is_refused(folder, content):
    (folder / "train.idx.npy").write_bytes(content)
    with pytest.raises(InputError, match="no split 'train'"):
        shards.load(folder, "train")


def test_a_pickle_is_not_loaded(folder):
    np.save(folder / "train.idx.npy", np.array([0, None], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="no split 'train'"):
        shards.load(folder, "train")


@pytest.mark.parametrize("missing", ["train.bin", "train.idx.npy"])
def test_a_split_that_is_not_there_is_refused(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(InputError, match="no split 'train'"):
        shards.load(folder, "train")
    with pytest.raises(InputError, match="no split 'test'"):
        shards.load(folder, "test")


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no data set .*: make one with `crystallm prepare`"):
        shards.load(tmp_path / "nowhere", "train")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff\xfe", b"[1]", b"7", b"null", b"{}", b'{"language": "orbits"}', b'{"vocab_size": 9}',
        b'{"language": 1, "vocab_size": 9}', b'{"language": "orbits", "vocab_size": "9"}',
        b'{"language": "orbits", "vocab_size": 0}', b'{"language": "orbits", "vocab_size": 65537}',
        b'{"language": "orbits", "vocab_size": true}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_foreign_json_is_refused(folder, content):
    (folder / run_folder.FACTS).write_bytes(content)
    with pytest.raises(InputError, match="make one with `crystallm prepare`") as caught:
        shards.load(folder, "train")
    assert "\n" not in str(caught.value)


def test_a_failure_leaves_the_old_split(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail():
        with shards.SplitWriter(folder, "train") as writer:
            writer.add(b"\1\0")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_writer_counts(tmp_path):
    with shards.SplitWriter(tmp_path, "train") as writer:
        writer.add(b"\1\0\2\0")
        writer.add(b"")
        assert (writer.n_crystals, writer.n_tokens) == (2, 2)


def test_facts_are_told_whole(folder):
    (folder / run_folder.FACTS).write_text(
        json.dumps({"language": "cif", "vocab_size": 371, "inputs": ["a.csv"]})
    )
    assert shards.facts(folder)["inputs"] == ["a.csv"]


def test_prefixes_are_read_with_their_crystals(folder):
    split = shards.load(folder, "train")
    write_split(folder, "train-relatives", [[7], [8, 9], []])
    facts = '{"language": "orbits", "vocab_size": 65536, "relatives": 4}'
    (folder / run_folder.FACTS).write_text(facts)
    both = shards.with_relatives(folder, "train")
    assert [both.crystal(i).tolist() for i in range(len(both))] == [[7, 1, 2, 3], [8, 9], [65535]]
    assert both.lengths.tolist() == [4, 2, 1]
    assert both.untaught.tolist() == [1, 2, 0]
    whole = shards.ConcatenatedSplit(split, both)
    assert whole.crystal(3).tolist() == [7, 1, 2, 3]
    assert whole.untaught.tolist() == [0, 0, 0, 1, 2, 0]


def test_relatives_that_are_missing_or_of_other_crystals_are_refused(folder):
    with pytest.raises(InputError, match="has no relatives: make them with `crystallm references relatives"):
        shards.with_relatives(folder, "train")
    write_split(folder, "train-relatives", [[7]])
    facts = '{"language": "orbits", "vocab_size": 65536, "relatives": 4}'
    (folder / run_folder.FACTS).write_text(facts)
    with pytest.raises(InputError, match="relatives of 1 crystals, and 3 crystals in 'train'"):
        shards.with_relatives(folder, "train")
