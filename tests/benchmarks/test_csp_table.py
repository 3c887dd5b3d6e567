"""The table of the benchmark: METRe, lines as text, growth."""

from __future__ import annotations

import pytest

from conftest import textbook
from crystallm.benchmarks import csp_table
from crystallm.benchmarks.reference_sets import ReferenceStructure

pytestmark = pytest.mark.usefixtures("kept")


def test_polymorphs_of_a_set_are_compared_with_each_other():
    """Samples of two entries of one formula, told the wrong way round: METRe sees that both were written."""
    from pymatgen.core import Lattice, Structure

    cubic = textbook()["perovskite"]
    places = [[0, 0, 0], [0, 0, 0.4], [0, 0, 0.68], [0.5, 0.5, 0.2], [0.5, 0.5, 0.7]]
    other = Structure(Lattice.tetragonal(3.1, 6.4), ["Sr", "Ti", "O", "O", "O"], places)
    truths = [
        ReferenceStructure("a", cubic),
        ReferenceStructure("b", other),
        ReferenceStructure("c", textbook()["rutile"]),
    ]
    samples = [[csp_table.CspSample(s.to(fmt="cif"))] for s in (other, cubic, cubic)]
    rows = csp_table.check_samples(list(enumerate(truths)), samples, composition_test=False)
    lines = {line.name: line for line in csp_table.tabulate(truths, rows, [1], composition_test=False)}
    assert lines["all samples"].match_rate == 0
    assert lines["METRe, cRMSE"].match_rate == pytest.approx(2 / 3)
    assert lines["METRe, cRMSE"].rmse == pytest.approx(0.5 / 3, abs=1e-3)


def test_one_of_n_is_the_crystal_that_a_person_gets_by_agreement():
    """Of four equal crystals the likeliest is an outlier by volume, as `--rank agreement` leaves it out."""
    rutile = textbook()["rutile"]
    scales = (1.2, 1.0, 1.01, 0.9)
    crystals = [rutile.copy().scale_lattice(scale * rutile.volume) for scale in scales]
    samples = [
        csp_table.CspSample(crystal.to(fmt="cif"), -rank) for rank, crystal in enumerate(crystals, start=1)
    ]
    entries = [(0, ReferenceStructure("a", rutile))]
    rows = csp_table.check_samples(entries, [samples], composition_test=False)
    assert [row["volume_per_atom"] for row in rows] == pytest.approx(
        [scale * rutile.volume / 6 for scale in scales], rel=1e-4
    )
    rows = [row | {"rms": number / 10, "plausible": True} for number, row in enumerate(rows)]
    truths = [reference for _, reference in entries]
    lines = {line.name: line for line in csp_table.tabulate(truths, rows, [4], composition_test=False)}
    assert lines["one of 4, by agreement"].rmse == pytest.approx(0.1)
    assert lines["one of 4, by likelihood"].rmse == pytest.approx(0.0)
