from __future__ import annotations

import pytest

from crystallm.errors import CrystallmError
from crystallm.storage import journal
from crystallm.storage.journal import Journal


def test_a_damaged_journal_is_cut_after_its_last_complete_round(tmp_path):
    log = Journal(tmp_path / "log")
    log.append([{"a": 1}, {"a": 2}])
    log.append([{"a": 3}, {"a": 4}])
    whole = (tmp_path / "log").read_bytes()
    for length in range(len(whole) // 2, len(whole)):
        (tmp_path / "log").write_bytes(whole[:length])
        again = Journal(tmp_path / "log")
        assert len(again.rounds) == 1
        again.append([{"a": 3}, {"a": 4}])
        assert (tmp_path / "log").read_bytes() == whole
    with pytest.raises(CrystallmError, match="cannot be read"):
        Journal(tmp_path)
    # Rounds follow this damage: they are not cut off.
    (tmp_path / "log").write_bytes(whole.replace(b'"a": 2', b'"a": "2'))
    with pytest.raises(CrystallmError, match="damaged in round 0"):
        Journal(tmp_path / "log")


def test_a_journal_without_a_file_keeps_its_rounds():
    log = Journal(None)
    log.append([{"a": 1}])
    with log.held():
        log.append([{"a": 2}, {"a": 3}])
    assert [[record["a"] for record in records] for records in log.rounds] == [[1], [2, 3]]


def test_one_process_at_a_time_writes_a_journal(tmp_path):
    first, second = Journal(tmp_path / "log"), Journal(tmp_path / "log")
    with first.held(), pytest.raises(CrystallmError, match="another process writes"), second.held():
        pytest.fail("both hold it")
    with second.held():
        second.append([{"a": 1}])
    # Without locks, what others have written since is noticed.
    with pytest.raises(CrystallmError, match="has changed since it was read"):
        first.append([{"a": 1}])
    assert len(Journal(tmp_path / "log").rounds) == 1


def test_records_are_appended_in_one_piece(tmp_path):
    path = tmp_path / "records.jsonl"
    assert journal.read_records(path) == []
    journal.append_records(path, [{"a": 1}, {"a": "ä"}])
    journal.append_records(path, [{"a": 3}], sync=True)
    assert journal.read_records(path) == [{"a": 1}, {"a": "ä"}, {"a": 3}]
    journal.write_records(path, [{"a": 4}])
    assert journal.read_records(path) == [{"a": 4}]


@pytest.mark.parametrize("rest", [b'{"a": 3', b'{"a": 3}', b"noise\n", b"7\n"])
def test_an_incomplete_last_line_is_left_out(tmp_path, rest):
    path = tmp_path / "records.jsonl"
    journal.append_records(path, [{"a": 1}, {"a": 2}])
    complete = path.read_bytes()
    path.write_bytes(complete + rest)
    assert journal.read_records(path) == [{"a": 1}, {"a": 2}]
    path.write_bytes(complete + rest.rstrip(b"\n") + b"\n" + complete)
    if rest.startswith(b'{"a": 3}'):
        assert len(journal.read_records(path)) == 5
    else:
        with pytest.raises(CrystallmError, match="damaged in line 3"):
            journal.read_records(path)


def test_an_append_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "records.jsonl"
    journal.append_records(path, [{"a": 1}])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CrystallmError, match="No space left on device"):
        journal.append_records(path, [{"a": 2}], sync=True)
    assert journal.read_records(path) == [{"a": 1}]
