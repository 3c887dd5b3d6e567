"""Rates, progress, JSON and tables on the terminal."""

from __future__ import annotations

import pytest

from crystallm.cli import console
from crystallm.cli.console import Pace


def test_the_rate_is_that_of_the_last_minute_or_the_last_steps():
    pace = Pace(10, 0.0)
    assert pace.rate == 0.0
    assert pace.describe(100) == ""
    for minute in range(1, 20):  # 60 a minute, then twice as many
        pace.mark(10 + 60 * minute if minute < 10 else 550 + 120 * (minute - 9), 60.0 * minute)
    assert pace.rate == pytest.approx(2.0)
    assert pace.describe(1750 + 240) == "2.0 crystals/s, 0:02:00 left"


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys, monkeypatch):
    times = iter([0.0, 0.0, 10.0, 70.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(times))
    with console.paced("generating crystals", 1000, 400, shown=True) as advance:
        advance(10)
        advance(70)
    assert capsys.readouterr().err == "generating crystals: 470 of 1,000, 1.0 crystals/s, 0:08:50 left\n"


def test_nothing_is_shown_where_nothing_is_wanted(capsys):
    for phase in (console.progress_bars(shown=False), console.progress_bars(shown=True)):
        with phase("reading", None) as advance:
            advance(3)
    assert capsys.readouterr().err == ""


def test_tables_show_brackets_and_are_wide_enough_for_files(capsys):
    table = console.new_table("sizes [Å]")
    table.add_column("text")
    table.add_row("x" * 100)
    console.page().print(table)
    out = capsys.readouterr().out
    assert "sizes [Å]" in out
    assert "x" * 100 in out
