"""A folder of crystals for energies and novelty, of which everything is known."""

from __future__ import annotations

import json

import numpy as np
import pytest

import real_crystals
from crystallm.cli import app
from crystallm.thermodynamics import reference_crystals
from energies import Morse


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
    energies = dict.fromkeys(symbols, -1.0)
    kept.write_text(json.dumps({"version": reference_crystals.VERSION, "energies": energies}))
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
