"""Energies of many structures, by models that fail."""

from __future__ import annotations

import time

import pytest
from pymatgen.core import Lattice, Structure

import energies
from crystallm.energy import calculations
from crystallm.execution.tasks import Failure


def of(element: str, a: float = 3.0) -> Structure:
    return Structure(Lattice.cubic(a), [element], [[0, 0, 0]])


def test_what_fails_costs_one_crystal_its_energy_and_tells_why():
    crystals = [of(x) for x in ("Cu", "He", "Ar", "Kr", "Xe", "Ag", "Cu", "Ne")]
    crystals.append(Structure(Lattice.cubic(3), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]]))
    start = time.monotonic()
    copper, raised, nan, wild, died, silver, again, hung, disordered = calculations.score(
        crystals, "energies:odd", workers=2, seconds=5.0
    )
    assert time.monotonic() - start < 55  # it would sleep for 60
    assert copper == again == pytest.approx(energies.Morse().predict(crystals[:1])[0].energy)
    assert isinstance(silver, float)
    assert raised == Failure("ValueError: no helium here")
    assert nan == Failure("the energy is nan")
    assert wild == Failure("the energy is -4000 eV/atom, out of bounds (±100)")
    assert died == Failure("the worker process died with code 7")
    assert hung == Failure("took longer than 5 s")
    assert disordered == Failure("partial occupancies have no energy")


def test_no_crystals_have_no_energies_and_start_no_process():
    assert calculations.score([], "energies:odd") == []


def test_relaxations_are_counted_equal_crystals_together(monkeypatch):
    """Two equal crystals are relaxed once, and both are done then."""
    crystals, done = [of("Cu"), of("Ag"), of("Cu")], []

    def relax_many(structures, model, options, **how):
        yield from enumerate(Failure("no model") for _ in structures)

    monkeypatch.setattr(calculations, "relax_many", relax_many)
    assert (
        calculations.relax_all(crystals, "energies:morse", on_done=done.append) == [Failure("no model")] * 3
    )
    assert done == [2, 3]
