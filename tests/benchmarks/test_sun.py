"""Stable, unique and novel: figures worked out by hand, and what cannot be weighed profits nobody."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from pymatgen.core import Composition, Structure

import real_crystals
from crystallm.benchmarks import sun
from crystallm.cli import app
from crystallm.errors import InputError
from crystallm.thermodynamics import collection_energies
from crystallm.thermodynamics.hull import Hull
from energies import Morse

needs_ase = pytest.mark.skipif(importlib.util.find_spec("ase") is None, reason="ase is not installed")


MORSE = ("--energy", "energies:morse", "--workers", "1", "--device", "cpu")


def row(e=None, *, unique=True, novel=True, energy=-1.0, rmsd=None, why=None):
    found = {"energy": energy, "e_above_hull": e, "unique": unique, "novel": novel, "rmsd": rmsd}
    return {"converged": True, "energy_reason": why, "compare_reason": None, **found}


ROWS = [
    row(-0.02),  # S.U.N.
    row(4e-16),  # S.U.N.: on the hull
    row(0.0, unique=False),
    row(-0.5, novel=False),
    row(0.05),  # M.S.U.N. alone
    row(0.1),  # likewise: at the bound
    row(0.05, unique=False, novel=False),
    row(0.2),
    row(energy=None, why="no crystal"),
    row(why="no entry of the element K"),
]


def test_sun_of_ten_crystals_is_what_one_counts():
    found = sun.summarise(ROWS, energies=True, relaxed=True, hull=True, known=True)
    counts = {name: one.count for name, one in found.shares.items()}
    assert counts == {
        "weighed": 9, "converged": 10, "placed": 8, "stable": 4, "metastable": 7, "unique": 8, "novel": 8,
        "sun": 2, "msun": 4,
    }  # fmt: skip
    assert found.shares["sun"].share == 0.2
    assert found.reasons == {"no crystal": 1, "no entry of the element K": 1}
    assert found.e_above_hull is not None
    assert found.e_above_hull.n == 8
    # -0.5, -0.02, 0, 0, 0.05, 0.05, 0.1, 0.2
    assert found.e_above_hull.median == pytest.approx(0.025)
    assert found.e_above_hull.mean == pytest.approx(-0.015)
    closer = sun.summarise(ROWS, bound=0.05, energies=True, relaxed=True, hull=True, known=True)
    assert (closer.shares["metastable"].count, closer.shares["msun"].count) == (6, 3)
    assert closer.shares["sun"] == found.shares["sun"]


def test_only_what_was_asked_for_is_told():
    bare = sun.summarise(ROWS, energies=False, relaxed=False, hull=False, known=True)
    assert list(bare.shares) == ["unique", "novel"]
    assert bare.e_above_hull is None
    assert bare.rmsd is None
    nothing = sun.summarise([row(energy=None)], energies=True, relaxed=True, hull=True, known=False)
    assert "sun" not in nothing.shares
    assert nothing.e_above_hull is not None
    assert math.isnan(nothing.e_above_hull.median)
    assert json.loads(json.dumps(nothing.record(), allow_nan=False))["rmsd"]["median"] is None


def test_intervals_of_shares_are_wilsons():
    # Newcombe, Statistics in Medicine 17, 857 (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for count, n, low, high in (
        (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718),
    ):  # fmt: skip
        found = sun.share(count, n)
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert sun.share(20, 20).high == 1.0


def test_intervals_of_a_median_hold_it_and_shrink():
    rng = np.random.default_rng(3)
    few, many = (sun.spread(list(rng.normal(0.3, 1.0, size=n))) for n in (30, 3000))
    assert few.median_interval[0] < few.median < few.median_interval[1]
    assert np.ptp(many.median_interval) < 0.3 * np.ptp(few.median_interval)
    assert sun.spread([0.3, None, 0.1]) == sun.spread([0.1, 0.3])


@pytest.fixture
def place(tmp_path, monkeypatch, textbook_structures):
    """Crystals, one told twice, one that breaks the model, one that is none; known ones; a hull of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRYSTALLM_CACHE", str(tmp_path / "cache"))
    for folder in ("made", "known"):
        (tmp_path / folder).mkdir()
    for name, structure in textbook_structures.items():
        structure.to(filename=f"made/{name}.cif", fmt="cif")
    told = real_crystals.told_otherwise(
        textbook_structures["rutile"], np.random.default_rng(0), [[1, 1, 0], [0, 1, 0], [0, 0, 2]]
    )
    told.to(filename="made/rutile-again.cif", fmt="cif")
    salt = (tmp_path / "made" / "rocksalt.cif").read_text()
    (tmp_path / "made" / "helium.cif").write_text(salt.replace("Cl", "He"))
    (tmp_path / "made" / "torn.cif").write_text("data_\n_cell_length_a 3\n")
    textbook_structures["diamond"].to(filename="known/d.cif", fmt="cif")
    # Known here, so that no reference crystal is relaxed.
    kept = tmp_path / "cache" / "references" / "energies_morse.json"
    kept.parent.mkdir(parents=True)
    symbols = ("Na", "Cl", "Ti", "O", "Zn", "S", "Sr", "C", "He")
    kept.write_text(json.dumps(dict.fromkeys(symbols, -1.0)))
    # Elements stand so high that the compounds alone make the hull, each so far below its crystal.
    below = {"rutile": -0.01, "rocksalt": 0.05, "wurtzite": 0.2, "diamond": -0.01}
    lines = [f"{symbol},5" for symbol in symbols[:6]]
    for name, far in below.items():
        structure = textbook_structures[name]
        energy = Morse().one(structure, forces=False).energy - far
        lines.append(f"{structure.composition.reduced_formula},{energy!r}")
    (tmp_path / "entries.csv").write_text("\n".join(["composition,energy_per_atom", *lines]) + "\n")
    return tmp_path


@pytest.fixture
def crystallm(capsys, place):
    def run(*arguments):
        code = app.run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


ODD = ("--energy", "energies:odd", "--workers", "1", "--device", "cpu")


ASKED = ("evaluate", "made", *ODD, "--hull", "entries.csv", "--out", "out", "--known", "known")


@needs_ase
def test_sun_of_a_folder_is_what_one_counts_and_a_killed_run_goes_on(crystallm, monkeypatch):
    with monkeypatch.context() as patch:

        def killed(*_, **__):
            raise KeyboardInterrupt

        patch.setattr(sun, "compare", killed)
        assert crystallm(*ASKED)[0] == 130
    # All energies are there: none is asked for again.
    monkeypatch.setattr(collection_energies, "collection_energies", None)
    code, out, err = crystallm(*ASKED, "--json")
    assert code == 0
    lacking = "crystallm: 'entries.csv' has no entry of the element He, Sr: 2 crystals have no energy"
    assert err.splitlines()[0].startswith(lacking)
    told = json.loads(out)
    counts = {name: one["count"] for name, one in told["sun"]["shares"].items()}
    assert counts == {
        "weighed": 6, "placed": 5, "stable": 3, "metastable": 4, "unique": 6, "novel": 6, "sun": 1, "msun": 2,
    }  # fmt: skip
    assert (told["n"], told["sun"]["n_known"], told["sun"]["n_compared"]) == (8, 1, 1)
    rows = {row["id"]: row for row in parquet.read_table("out/results.parquet").to_pylist()}
    assert len(rows) == 8
    above = {name: row["e_above_hull"] for name, row in rows.items() if row["e_above_hull"] is not None}
    far = {"rutile": -0.01, "rutile-again": -0.01, "rocksalt": 0.05, "wurtzite": 0.2, "diamond": -0.01}
    assert above == pytest.approx(far, abs=1e-6)
    assert rows["rutile-again"]["repeats"] == "rutile" or rows["rutile"]["repeats"] == "rutile-again"
    assert (rows["diamond"]["novel"], rows["diamond"]["known"]) == (False, "d")
    assert rows["helium"]["energy_reason"] == "ValueError: no helium here"
    assert rows["perovskite"]["energy_reason"].startswith("'entries.csv' has no entry of the element Sr")
    assert rows["torn"]["energy_reason"] == "no crystal"
    assert not rows["torn"]["unique"] and not rows["torn"]["novel"]  # noqa: PT018 - one claim on both
    # Figures of a finished run need no work; what its rows rest on cannot change.
    monkeypatch.setattr(sun, "compare", None)
    code, out, _ = crystallm(*ASKED, "--metastable-threshold", "0.02")
    assert code == 0
    assert "metastable: ≤ 0.02 eV/atom" in out
    assert "novel: against 1 known crystals" in out
    assert "does not say whether its energies are of energies:odd" in out
    assert "S.U.N.: stable, unique, novel" in Path("out/report.html").read_text(encoding="utf-8")
    code, _, err = crystallm(*ASKED, "made")
    assert code == 2
    assert "out holds another run (known was" in err
    with Path("entries.csv").open("a", encoding="utf-8") as file:
        file.write("Sr,5\n")
    code, _, err = crystallm(*ASKED)
    assert code == 2
    assert "out holds another run (hull_digest was" in err


@needs_ase
def test_relaxed_crystals_are_compared_and_counted_as_they_have_become(crystallm, inline):
    code, out, err = crystallm("hull", "made", *MORSE, "--out", "hull.jsonl")
    assert (code, err) == (0, "")
    assert "1  no crystal: the text has no _cell_length_b" in out
    asked = ("evaluate", "made/rutile.cif", *MORSE, "--hull", "hull.jsonl", "--relax", "--out", "out")
    code, out, err = crystallm(*asked, "--known", "known", "made")
    assert code == 0
    said = "the entries of 'hull.jsonl' were not relaxed, these crystals are"
    assert err == f"crystallm: {said}: energies above the hull come out too low\n"
    assert "by the same method" not in out  # of these entries it is known
    (row,) = parquet.read_table("out/results.parquet").to_pylist()
    assert row["converged"]
    assert row["energy"] < row["energy_before"]
    composition = Structure.from_file("made/rutile.cif").composition
    assert row["e_above_hull"] == pytest.approx(Hull(Path("hull.jsonl")).above(composition, row["energy"]))
    relaxed = Structure.from_str(row["relaxed_cif"], fmt="cif")
    assert Morse().one(relaxed, forces=False).energy == pytest.approx(row["energy"], abs=1e-4)
    assert row["rmsd"] == pytest.approx(
        collection_energies.rmsd(Structure.from_file("made/rutile.cif"), relaxed), abs=1e-3
    )
    assert 0.1 < row["rmsd"] < 0.5
    # As it was written it is a known crystal; it has become another one.
    assert (row["unique"], row["novel"]) == (True, True)


@needs_ase
def test_what_is_new_is_told_without_energies(crystallm, inline):
    code, out, err = crystallm("evaluate", "made", "--known", "known", "--workers", "1", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)["sun"]
    assert {name: one["count"] for name, one in found["shares"].items()} == {"unique": 6, "novel": 6}
    assert found["e_above_hull"] is None


def entries(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


@needs_ase
def test_a_hull_is_made_of_known_crystals_and_goes_on_where_it_was_killed(crystallm, inline, monkeypatch):
    asked = ("hull", "made", *MORSE, "--chemical-systems", "made/rutile.cif")
    code, out, err = crystallm(*asked, "--out", "whole.jsonl")
    assert (code, err) == (0, "")
    assert out == "4 entries in whole.jsonl, 0 crystals without one\n"
    rows = entries("whole.jsonl")
    assert [(row["id"], row["composition"]) for row in rows] == [
        ("O", "O"), ("Ti", "Ti"), ("rutile-again", "O8Ti4"), ("rutile", "O4Ti2"),
    ]  # fmt: skip
    energy = Morse().one(Structure.from_file("made/rutile.cif"), forces=False).energy
    assert [row["energy_per_atom"] for row in rows] == pytest.approx([-1.0, -1.0, energy, energy], abs=1e-6)
    assert {(row["model"], row["relaxed"]) for row in rows} == {("energies:morse", False)}
    # As if killed while it wrote the second crystal.
    Path("killed.jsonl").write_text(f'{json.dumps(rows[2])}\n{{"number": 5, "id": "ru')
    seen = []
    weigh = collection_energies.collection_energies
    monkeypatch.setattr(
        collection_energies,
        "collection_energies",
        lambda texts, *a, **k: seen.extend(texts) or weigh(texts, *a, **k),
    )
    assert crystallm(*asked, "--out", "killed.jsonl")[0] == 0
    assert len(seen) == 1
    assert Path("killed.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()
    code, _, err = crystallm(*asked, "--relax", "--out", "whole.jsonl")
    assert code == 2
    assert "'whole.jsonl' holds other entries (relaxed was False, now True)" in err
    # A known crystal on the hull stands 0 above it; entries of another model are refused.
    below = ("evaluate", "made/rutile.cif", "--hull", "whole.jsonl", "--workers", "1", "--device", "cpu")
    code, out, _ = crystallm(*below, "--energy", "energies:morse", "--json")
    assert json.loads(out)["sun"]["e_above_hull"]["median"] == pytest.approx(0.0, abs=1e-6)
    code, _, err = crystallm(*below, "--energy", "energies:odd")
    assert code == 2
    assert "'whole.jsonl' has energies of energies:morse, not of energies:odd" in err


@needs_ase
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("evaluate", "made", "--relax"), 2, "relax without energy"),
        (("evaluate", "made", *MORSE, "--steps", "9"), 2, "steps = 9 without relax"),
        (("evaluate", "made", "--hull", "entries.csv"), 2, "hull = 'entries.csv' without energy"),
        (("evaluate", "made", *MORSE, "--metastable-threshold", "0.2"), 2, "without hull: set both"),
        (("evaluate", "made", *MORSE, "--metastable-threshold", "0"), 2, "without hull: set both"),
        (
            ("evaluate", "made", *MORSE, "--hull", "entries.csv", "--metastable-threshold", "-1"),
            2,
            "metastable_threshold = '-1'",
        ),
        (("evaluate", "made", *MORSE, "--hull", "none.csv"), 1, "'none.csv' cannot be read"),
        (
            ("evaluate", "made", *MORSE, "--relax", "--steps", "0"),
            2,
            "steps = '0'",
        ),
        (("evaluate", "made", "--known", "known", "nowhere"), 2, "no file or folder 'nowhere'"),
        (("evaluate", "made", "--energy", "dft"), 2, "no energy model 'dft'"),
        (("hull",), 2, "no crystals"),
        (("hull", "made"), 2, "no file for the entries"),
        (("hull", "made", *MORSE, "--out", "hull.json"), 2, "name a file that ends in .jsonl"),
        (("hull", "made", *MORSE, "--out", "none/hull.jsonl"), 2, "make it first"),
        (("hull", "made", *MORSE, "--steps", "5", "--out", "h.jsonl"), 2, "steps = 5 without relax"),
        (
            ("hull", "made", *MORSE, "--chemical-systems", "made/torn.cif", "--out", "h.jsonl"),
            2,
            "states its formula",
        ),
        (("hull", "made/torn.cif", *MORSE, "--out", "h.jsonl"), 1, "gives no entry"),
        (("hull", "made", *MORSE, "--out", "notes.jsonl"), 2, "line 1: not of crystallm hull"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(crystallm, place, arguments, code, said):
    (place / "notes.jsonl").write_text('{"composition": "Ti"}\n{"composition": "O"}\n')
    found, out, err = crystallm(*arguments)
    assert (found, out) == (code, "")
    assert said in err
    assert err.count("\n") == 1
    assert not (place / "h.jsonl").exists()


def test_a_hull_of_noble_gases_is_quiet(tmp_path):
    (tmp_path / "gas.csv").write_text("composition,energy_per_atom\nHe,0\nLi,-1\nLi3He,-1\n")
    # Warnings are errors here. LiHe2 is 4/9 Li3He and 5/9 He.
    assert Hull(tmp_path / "gas.csv").above(Composition("LiHe2"), -0.3) == pytest.approx(4 / 9 - 0.3)


def test_a_hull_says_whose_energies_it_has_where_it_knows(tmp_path):
    lines = [{"composition": "Ti", "energy_per_atom": -1.0, "model": "chgnet", "relaxed": True}]
    (tmp_path / "own.jsonl").write_text(json.dumps(lines[0]))
    (tmp_path / "any.csv").write_text("composition,energy_per_atom\nTi,-1\n")
    own, other = Hull(tmp_path / "own.jsonl"), Hull(tmp_path / "any.csv")
    assert (own.models, own.relaxed, other.models, other.relaxed) == ({"chgnet"}, {True}, set(), set())
    own.check_model("chgnet")
    other.check_model("chgnet")
    with pytest.raises(InputError, match="has energies of chgnet, not of sevennet"):
        own.check_model("sevennet")
