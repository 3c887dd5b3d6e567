from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from pymatgen.core import Structure

from crystallm.thermodynamics import collection_energies
from energies import Morse

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ase") is None, reason="ase is not installed")
MORSE = ("--energy", "energies:morse", "--workers", "1", "--device", "cpu")


def entries(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


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
