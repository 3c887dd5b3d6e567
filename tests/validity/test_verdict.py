"""Results of checks as records."""

from __future__ import annotations

from dataclasses import asdict

from crystallm.errors import CrystallmError
from crystallm.validity import verdict
from crystallm.validity.verdict import Validity


def test_a_record_is_the_result_again():
    validity = Validity(
        sensible=True,
        formula=True,
        multiplicity=False,
        bond_score=0.5,
        space_group=True,
        valid=False,
        reasons=("multiplicity: the atom rows print none",),
    )
    record = asdict(validity)
    assert verdict.from_record(record | {"reasons": list(record["reasons"])}) == validity


def test_a_text_that_cannot_be_read_passes_nothing():
    validity = verdict.no_text(CrystallmError("no atoms"))
    assert validity.reasons == ("no atoms",)
    assert not any((validity.sensible, validity.formula, validity.multiplicity, validity.space_group))
    assert validity.bond_score is None
