from __future__ import annotations

import pytest

from crystallm.benchmarks import sun
from crystallm.pipelines import evaluate, evaluate_report
from crystallm.pipelines.options import EvaluateOptions
from crystallm.validity import collection

pytestmark = pytest.mark.usefixtures("undrawn")


def row(name, *, valid=True, **more):
    facts = {"id": name, "readable": True, **dict.fromkeys(collection.CHECKS, valid), "as_printed": True}
    facts |= {"reasons": "" if valid else "bonds: too long", "bond_score": 1.0, "volume_per_atom": 11.0}
    return dict.fromkeys(collection.COLUMNS | sun.COLUMNS) | facts | more


def result(rows, **options):
    group = EvaluateOptions(**options)
    totals = None
    if group.compares:
        totals = sun.summarise(
            rows, bound=group.metastable_threshold, energies=True, relaxed=group.relax, hull=True, known=True
        )
    counts = {"n_known": 7, "n_compared": 2, "n_unreadable": 1} if group.known else {}
    summary = collection.summarise(rows)
    return evaluate.EvaluationResult("c", group, rows, summary, totals, counts, unverified_hull=True)


ROWS = [
    row("a", energy=-1.0, e_above_hull=0.05, unique=True, novel=True),
    row("b", valid=False, energy_reason="no sensible cell", unique=False, novel=False),
]
OPTIONS = {"energy": "chgnet", "hull": "h.jsonl", "known": ("k",)}


def test_shares_and_spreads_are_lines_of_tables():
    totals = result(ROWS, **OPTIONS).sun
    shares = {name: cells for name, *cells in evaluate_report.share_lines(totals)}
    assert shares["metastable: ≤ 0.1 eV/atom"][:2] == ["1", "50.0"]
    assert shares["stable: ≤ 0 eV/atom above the hull"][0] == "0"
    ((title, n, median, *_),) = evaluate_report.spread_lines(totals)
    assert (title, n, median) == ("energy above the hull, eV/atom", "1", "0.050")


def test_notes_name_what_the_figures_rest_on():
    notes = "\n".join(evaluate_report.notes(result(ROWS, **OPTIONS)))
    assert "against 7 known crystals, 2 of them of a generated formula" in notes
    assert "1 known crystals could not be read" in notes
    assert "'h.jsonl' does not say whether its energies are of chgnet" in notes
    assert "1  no sensible cell" in notes


def test_the_page_has_checks_reasons_and_pictures(tmp_path):
    evaluate_report.write(result(ROWS, **OPTIONS), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for text in ("c: 2 crystals evaluated", "Energies and novelty", "bonds: too long", "The first 1 of 1"):
        assert text in page
    assert page.count("<img") == 5
    plain = evaluate_report.html(result([row("a")]))
    assert "Energies" not in plain
    assert "not valid</h" not in plain
    assert plain.count("<img") == 4
