from __future__ import annotations

from crystallm.cli import console, crystal_tables


def row(**known):
    base = {
        "request": 0, "sample": 0, "formula": "Ti2O4", "space_group": "P4_2/mnm", "space_group_number": 136,
        "a": 4.594, "b": 4.594, "c": 2.958, "alpha": 90.0, "beta": 90.0, "gamma": 90.0,
        "volume_per_atom": 10.4, "log_likelihood": -10.0, "plausible": True, "reasons": "", "text": "one",
    }  # fmt: skip
    return base | known


BROKEN = {
    "formula": None,
    "plausible": False,
    "text": "broken",
    "reasons": "token 3: [a count] expected; and more",
}


def test_the_best_of_each_request_comes_first():
    rows = [
        row(sample=0, log_likelihood=-1.0, **BROKEN),
        row(sample=1, log_likelihood=-2.0, plausible=False),
        row(sample=2, log_likelihood=-9.0),
        row(sample=3, log_likelihood=-5.0),
        row(sample=0, request=1, log_likelihood=-99.0),
    ]
    assert [(r["request"], r["sample"]) for r in crystal_tables.best_first(rows)] == [
        (0, 3),
        (0, 2),
        (0, 1),
        (0, 0),
        (1, 0),
    ]


def test_a_table_says_what_a_crystal_is_or_why_there_is_none(capsys):
    hexagonal = row(sample=2, space_group="P6_3mc", space_group_number=186, gamma=120.0, text="two")
    crystal_tables.print_crystals(
        [row(), row(sample=1), hexagonal, row(sample=3, **BROKEN)], "as asked", 1, 40
    )
    out = capsys.readouterr().out
    assert "as asked" in out
    (rutile,) = [line for line in out.splitlines() if "P4_2/mnm (136)" in line]
    assert "4.59 4.59 2.96" in rutile
    assert "0 ×2" in rutile
    assert "×equal" in out
    assert "90 90 120" in out
    assert "token 3: [a count] expected" in out
    assert "and more" not in out


def test_what_helps_is_told_where_large_cells_come_out_broken(capsys):
    large = row(n_atoms=1000, formula="C1000", plausible=False, reasons="bonds")
    for rows, told in (
        ([large, row(n_atoms=8, plausible=False, sample=1)], True),
        ([large, row(n_atoms=1000, sample=1, text="two")], False),  # one is valid
        ([row(n_atoms=8, plausible=False)], False),  # size is not the matter
        ([row(**BROKEN)], False),
    ):
        crystal_tables.print_crystals(rows, "as asked", 1, 40)
        found = [
            line for line in capsys.readouterr().out.splitlines() if line.startswith("none is plausible")
        ]
        assert len(found) == told
        if told:
            assert "(1000 atoms)" in found[0]
            assert "request fewer formula units" in found[0]


def test_a_narrow_terminal_still_shows_the_verdict(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(console, "_MIN_WIDTH", 80)
    crystal_tables.print_crystals([row(formula="Mg8Al16O32", sample=1234)], "as asked", 1, 40)
    lines = capsys.readouterr().out.splitlines()
    assert any("plausible" in line and "4.59 4.59 2.96" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_no_value_is_cut_on_a_narrow_page(capsys, monkeypatch):
    monkeypatch.setattr(console, "_MIN_WIDTH", 0)
    full = {"energy": -8.123, "formation_energy": -3.456, "z": 4, "z_probability": 0.37}
    rows = [row(formula="Mg8Al16O32", sample=i, text="one", **full) for i in range(12)]
    for width in (160, 100, 80):
        monkeypatch.setenv("COLUMNS", str(width))
        crystal_tables.print_crystals(rows, "as asked", 1, 40)
        out = capsys.readouterr().out
        assert max(map(len, out.splitlines())) <= width
        for value in ("Mg8Al16O32", "plausible", "-8.123", "×12"):
            assert value in out, (width, value)
        assert ("-10.0" in out) != ("(too narrow for: log-lik." in out)
        assert ("(too narrow" in out) == (width < 160)


def test_a_long_table_is_cut_and_says_so(capsys):
    crystal_tables.print_crystals([row(sample=i, text=str(i)) for i in range(9)], "as asked", 1, 4)
    assert "... and 5 more" in capsys.readouterr().out


def test_crystals_made_of_known_ones_name_them(capsys):
    made = row(relative="mp-856", relative_formula="SnO2", relative_distance=0.123, log_likelihood=-0.5)
    crystal_tables.print_crystals([made, row(sample=1, text="two")], "as requested", 1, 40)
    out = capsys.readouterr().out
    assert {"prob.", "like", "61%", "SnO2,", "mp-856", "(0.12)"} <= set(out.split())
