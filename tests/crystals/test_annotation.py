"""Energies of many crystals."""

from __future__ import annotations

from crystallm.crystals.annotation import missing_energies


def test_crystals_without_an_energy_are_counted_with_the_most_frequent_reason():
    assert missing_energies([(-3.0, None), (None, None)]) == ""  # none was wanted of the second
    failed = [(None, "EMT has no Na")] * 3
    assert missing_energies(failed) == "3 of 3 have no energy: EMT has no Na"
    mixed = [(-3.0, None), (None, "took longer than 60 s"), *failed]
    assert missing_energies(mixed) == "4 of 5 have no energy: EMT has no Na (3 times; other reasons: 1)"
