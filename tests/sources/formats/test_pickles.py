"""Pickles are read as plain data or rejected; nothing in them is ever run."""

from __future__ import annotations

import pickle
import tracemalloc

import pytest

from crystallm.errors import InputError
from crystallm.sources import collection
from crystallm.sources.entry import Entry
from kinds import refused, written


class Evil:
    """What a pickle would run."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return __import__("os").mkdir, (str(self.marker),)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("place", [0, 2000])
def test_a_pickle_that_would_run_something_is_refused_at_once(tmp_path, protocol, place):
    items = [(str(i), "data_x\n") for i in range(2001)]
    items[place] = Evil(tmp_path / "marker")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(items, protocol=protocol))
    entries = collection.read(tmp_path / "x.pkl")
    with pytest.raises(InputError, match=r"holds (posix|nt).mkdir, which is not plain data: refused"):
        next(entries)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"](cos\nsystem\nX\x01\0\0\0xtRa.", "os.system"),
        (b"\x80\x04]\x8c\x02os\x8c\x06system\x93a.", "os.system"),
        (b"](X\x01\0\0\0xios\nsystem\na.", "os.system"),
        (b"](K\x01oa.", "cannot be read"),
        (b"\x80\x02]K\x01)\x81a.", "cannot be read"),
        (b"\x80\x04])})\x92a.", "cannot be read"),
        (b"\x80\x02]\x82\x01a.", "cannot be read"),
        (b"\x80\x02]\x83\x01\0a.", "cannot be read"),
        (b"\x80\x02]\x84\x01\0\0\0a.", "cannot be read"),
        (b"]Pname\na.", "cannot be read"),
        (b"]K\x01Qa.", "cannot be read"),
        (b"]}}b.", "no pickled list"),
        (b"]K\x01)Ra.", "cannot be read"),
        (b"\x80\x04]\x8fa.", ""),
        (b"\x80\x05]\x97a.", "cannot be read"),
        (b"]X\xff\xff\xff\x7fabc", "more than 5 MB"),
        (b"\x80\x04]\x8d" + b"\xff" * 7 + b"\x7fabc", "more than 5 MB"),
        (b"]V" + b"x" * 6_000_000 + b"\n.", "more than 5 MB"),
        (b"]" + b"]" * 200_000 + b".", "empty list"),
        (b"]" + b"(" * 200_000 + b".", "cannot be read"),
        (b"])" + b"\x85" * 200_000 + b"a.", ""),
        (b"]" + b"]2" * 200 + b"a" * 200 + b".", ""),
        (b"]q\0h\0a.", ""),
        (b"]q\0(h\0ta.", ""),
        (b"]h\x07a.", "cannot be read"),
        (b"]a.", "cannot be read"),
        (b"]e.", "cannot be read"),
        (b"0.", "cannot be read"),
        (b"K\x01.", "no pickled list"),
        (b"}.", "no pickled list"),
        (b"].", "empty list"),
        (b"](K\x01K\x02", "is it truncated?"),
        (b"", "is it truncated?"),
        (b"\x80\x02]r\xff\xff\xff\xffK\x01a.", ""),
        (b"\xff\xff", "is it truncated?"),
        (b"]I" + b"1" * 5000 + b"\na.", "cannot be read"),
    ],
)
def test_odd_pickles_are_one_line(tmp_path, content, message):
    (tmp_path / "x.pkl").write_bytes(content)
    if message:
        assert message in refused(tmp_path / "x.pkl")
    else:
        assert all(entry.problem for entry in collection.read(tmp_path / "x.pkl"))


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_holds_pairs_texts_and_what_is_neither(tmp_path, protocol):
    again = "data_again\n"
    pair = ["list", "data_list\n"]
    odd = [None, 1.5, [], {"id": "x"}, ("a", "b", "c"), ("a", 3), (1 << 10_000, "data_x")]
    items = [("ä", again), pair, (7, again), again, pair, *odd, ("late", again), "\ud800"]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(items, protocol=protocol))
    found = list(collection.read(tmp_path / "x.pkl"))
    assert found[:5] == [
        Entry("ä", again),
        Entry("list", "data_list\n"),
        Entry("7", again),
        Entry("3", again),
        Entry("list", "data_list\n"),
    ]
    assert all("in place of a pair" in entry.problem for entry in found[5:12])
    assert found[12:] == [Entry("late", again), Entry("13", "?")]


@pytest.mark.parametrize("name", ["protocol0.pkl", "protocol2.pkl", "packed.pkl.gz"])
def test_a_pickle_is_held_once(tmp_path, textbook_structures, name):
    structures = list(textbook_structures.values())
    path = written(tmp_path, name, {f"m{i}": structures[i % 5] for i in range(2000)})
    size = sum(len(entry.text) for entry in collection.read(path))
    tracemalloc.start()
    assert sum(entry.text is not None for entry in collection.read(path)) == 2000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * size + 1_000_000, (peak, size)
