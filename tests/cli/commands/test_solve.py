"""`crystallm solve`: the words that reach the pipeline, and what is printed."""

from __future__ import annotations

from pathlib import Path

from crystallm.cli import app
from crystallm.diffraction.solution import report
from crystallm.diffraction.solution.report import SolveResult

SUMMARY = {
    "pattern": "a.xy",
    "radiation": "CuKa",
    "conclusion": "nothing fits: ...",
    "fits": False,
    "candidates": 12,
}
ANSWER = {
    "rank": 1, "formula": "Ti2O4", "space_group": "P4_2/mnm", "space_group_number": 136, "a": 4.6, "b": 4.6,
    "c": 2.95, "alpha": 90.0, "beta": 90.0, "gamma": 90.0, "rwp": 0.8, "similarity": 0.5,
    "share_unexplained": 0.7, "relative_formula": None, "unexplained": [], "refined": True,
}  # fmt: skip


def test_options_reach_the_pipeline_and_the_answer_is_printed(monkeypatch, capsys):
    seen = []

    def run(pattern, options, sampling, known, out, **more):
        seen.append((pattern, options, known, out, more["workers"]))
        return SolveResult([ANSWER], SUMMARY)

    monkeypatch.setattr(report, "run", run)
    words = ["solve", "a.xy", "--formula", "TiO2,Ti2O3", "--wavelength", "MoKa", "--from", "network"]
    assert app.run([*words, "--workers", "2", "--no-stop-early"]) == 0
    ((pattern, options, known, out, workers),) = seen
    assert (pattern.pattern, pattern.wavelength) == (Path("a.xy"), "MoKa")
    assert (options.formula, options.stop_early, known.crystals_from) == ("TiO2,Ti2O3", False, "network")
    assert (out, workers) == (None, 2)
    shown = capsys.readouterr().out
    assert "a.xy, CuKa: nothing fits" in shown
    assert "4.6000 4.6000 2.9500" in shown
    assert "12 candidates tried; no files" in shown
