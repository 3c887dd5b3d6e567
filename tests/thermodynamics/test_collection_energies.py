"""Energies of a collection, as written or relaxed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

import real_crystals
from crystallm.cli import app
from crystallm.energy.relaxation import RelaxOptions
from crystallm.execution import pool
from crystallm.thermodynamics import collection_energies
from energies import Morse

needs_ase = pytest.mark.skipif(importlib.util.find_spec("ase") is None, reason="ase is not installed")


def test_how_far_atoms_move_is_told_in_angstroms():
    lattice = Lattice.cubic(4.0)
    ideal = Structure(lattice, ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    moved = Structure(lattice, ["Cs", "Cl"], [[0, 0, 0], [0.55, 0.5, 0.5]])
    # 0.2 Å against each other, so that each is 0.1 Å from where it was in the frame of both.
    assert collection_energies.rmsd(ideal, moved) == pytest.approx(0.1, rel=1e-6)
    assert collection_energies.rmsd(ideal, ideal.copy()) == pytest.approx(0.0, abs=1e-9)
    grown = ideal.copy()
    grown.scale_lattice(80.0)
    assert collection_energies.rmsd(ideal, grown) == pytest.approx(0.0, abs=1e-9)
    other = Structure(Lattice.orthorhombic(2.0, 4.0, 8.0), ["Cs", "Cl"], [[0, 0, 0], [0.0, 0.0, 0.2]])
    # The mean cell has the lengths 3, 4 and 6 Å.
    assert collection_energies.rmsd(ideal, other) == pytest.approx(0.5 * (72 / 2) ** (1 / 3))


@pytest.fixture
def place(tmp_path, monkeypatch, textbook_structures):
    """Crystals, one told twice, one that breaks the model, one that is none; known ones; a hull of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
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
    kept = tmp_path / "cache" / "crystallm" / "references" / "energies_morse.json"
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


def entries(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


@needs_ase
def test_an_executor_weighs_as_processes_do(place, inline):
    texts = [Path("made/rutile.cif").read_text(), Path("made/torn.cif").read_text()]
    for options in (None, RelaxOptions(steps=3)):
        here = collection_energies.collection_energies(texts, "energies:morse", options=options)
        there = collection_energies.collection_energies(
            texts, "energies:morse", options=options, executor=pool.Inline()
        )
        assert here[0].energy is not None
        assert (there[0].energy, there[0].rmsd) == pytest.approx((here[0].energy, here[0].rmsd), abs=1e-9)
        assert there[1] == here[1] == collection_energies.EnergyResult(reason=here[1].reason)
        assert here[1].reason.startswith("no crystal")
    assert here[0].converged is False
