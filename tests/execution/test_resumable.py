from __future__ import annotations

import contextlib

import pytest

from crystallm.errors import CrystallmError, InputError
from crystallm.execution.resumable import UnitResult, run_units
from crystallm.storage.run_folder import RunFolder

COLUMNS = {"value": "int64"}
UNITS = [[1, 2, 3], [4], [5, 6]]


def do(units, work, run, **more):
    run_units(units, work, run, task="doubling", **more)


def folder(path, config="a"):
    return RunFolder(path, {"config": config}, COLUMNS)


def doubled(units, _):
    for number, values in units:
        yield UnitResult(number, [{"value": 2 * value} for value in values], {f"{number}.cif": str(values)})


def backwards(units, _):
    yield from reversed(list(doubled(units, None)))


def failing_after(n, calls=None):
    def work(units, _):
        for number, values in units:
            if number == n:
                raise RuntimeError("killed")
            if calls is not None:
                calls.append(number)
            yield UnitResult(number, [{"value": 2 * value} for value in values])

    return work


def values(run):
    return [row["value"] for row in run.rows()]


@pytest.mark.parametrize("work", [doubled, backwards])
@pytest.mark.parametrize("kept", [True, False], ids=["folder", "memory"])
def test_rows_come_in_the_order_of_the_units(tmp_path, work, kept):
    run = folder(tmp_path / "run" if kept else None)
    do(UNITS, work, run)
    run.finish()
    assert values(run) == [2, 4, 6, 8, 10, 12]
    assert run.finished
    if kept:
        assert (tmp_path / "run" / "cifs" / "1.cif").read_text() == "[4]"


def test_a_killed_run_does_only_what_is_missing(tmp_path):
    with pytest.raises(RuntimeError, match="killed"):
        do(UNITS, failing_after(2), folder(tmp_path))
    calls = []
    run = folder(tmp_path)
    do(UNITS, failing_after(-1, calls), run)
    assert calls == [2]
    assert values(run) == [2, 4, 6, 8, 10, 12]


def test_a_finished_run_draws_no_unit(tmp_path):
    do(UNITS, doubled, folder(tmp_path))
    folder(tmp_path).finish()
    do(iter(lambda: pytest.fail("drawn"), None), doubled, folder(tmp_path))


def test_work_is_not_started_where_all_units_are_done(tmp_path):
    do(UNITS, doubled, folder(tmp_path))
    do(UNITS, lambda *_: pytest.fail("started"), folder(tmp_path))


def test_progress_counts_what_was_done_before_and_never_falls(tmp_path):
    with pytest.raises(RuntimeError):
        do(UNITS, failing_after(1), folder(tmp_path))
    seen = []

    @contextlib.contextmanager
    def progress(task, total, done):
        seen.append((task, total, done))
        yield seen.append

    def work(units, advance):
        for result in doubled(units, None):
            advance(1)
            yield result
            advance(0)

    do(UNITS, work, folder(tmp_path), total=6, size=len, progress=progress)
    assert seen == [("doubling", 6, 3), 1, 1, 1, 1, 3, 3]


def test_a_unit_that_was_left_out_is_an_error(tmp_path):
    def lazy(units, _):
        yield from doubled([next(units)], None)

    with pytest.raises(CrystallmError, match="2 of 3 units of the run are not done"):
        do(UNITS, lazy, folder(tmp_path))


def test_units_of_another_content_are_rejected(tmp_path):
    with pytest.raises(RuntimeError):
        do(UNITS, failing_after(2), folder(tmp_path), digest=str)
    do(UNITS, doubled, folder(tmp_path), digest=str)
    changed = [UNITS[0], [7], UNITS[2]]
    with pytest.raises(InputError, match="the input has changed .*from unit 1 on"):
        do(changed, doubled, folder(tmp_path), digest=str)


def test_another_run_is_rejected_before_a_unit_is_drawn(tmp_path):
    do(UNITS, doubled, folder(tmp_path))
    with pytest.raises(InputError, match="another run"):
        do(iter(lambda: pytest.fail("drawn"), None), doubled, folder(tmp_path, "b"))


def test_work_is_closed_where_a_result_cannot_be_stored(tmp_path, monkeypatch):
    closed = []

    def work(units, _):
        try:
            yield from doubled(units, None)
        finally:
            closed.append(True)

    run = folder(tmp_path)
    monkeypatch.setattr(run, "write_unit", lambda *_: (_ for _ in ()).throw(CrystallmError("full")))
    with pytest.raises(CrystallmError, match="full"):
        do(UNITS, work, run)
    assert closed == [True]
