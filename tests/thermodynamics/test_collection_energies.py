"""Energies of a collection, as written or relaxed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from crystallm.energy.relaxation import RelaxOptions
from crystallm.execution import pool
from crystallm.thermodynamics import collection_energies

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
