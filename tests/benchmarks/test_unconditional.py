"""Validity, coverage, Wasserstein distances: the original's figures on 60 crystals, what they rest on."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Structure

from crystallm.benchmarks import fingerprints, unconditional
from crystallm.benchmarks.fingerprints import CrystalDescription
from crystallm.benchmarks.unconditional import CUT_OFFS, CutOffs
from crystallm.errors import CrystallmError, InputError

GOLDEN: dict[str, Any] = json.loads(
    gzip.decompress((Path(__file__).parents[1] / "golden" / "unconditional.json.gz").read_bytes())
)


needs_matminer = pytest.mark.skipif(
    find_spec("matminer") is None, reason="fingerprints need matminer: pip install 'crystallm[bench]'"
)


@pytest.fixture(scope="module")
def described() -> tuple[list[CrystalDescription], list[CrystalDescription]]:
    """The golden crystals, generated and true; every third one as a structure, where it is one."""
    samples: list[Any] = [*GOLDEN["generated"], *GOLDEN["truth"]]
    for i in range(0, len(samples), 3):
        if not fingerprints._counts_of_rows(samples[i]):
            continue
        crystal = _read(samples[i])
        samples[i] = samples[i] if crystal is None else crystal
    found = fingerprints.describe(samples)
    return found[: len(GOLDEN["generated"])], found[len(GOLDEN["generated"]) :]


def _read(cif: str) -> Structure | None:
    try:
        return Structure.from_str(cif, fmt="cif")
    except ValueError:
        return None


def crystal(density: float, *, where: float = 0.0, valid: bool = True) -> CrystalDescription:
    """A described crystal with fingerprints at `where` on the first axis of each."""
    means, deviations = fingerprints.scaler()
    return CrystalDescription(
        composition_valid=valid,
        structure_valid=valid,
        density=density,
        n_elements=round(density) % 5 + 1,
        structure=(where, *[0.0] * 60),
        composition=tuple(means + where * deviations * np.eye(132)[0]),
    )


@needs_matminer
def test_the_figures_are_the_originals(described) -> None:
    ours = unconditional.score(*described, CUT_OFFS["perov_5"])
    theirs = GOLDEN["expected"]
    for name, original in {
        "composition_validity": "comp_valid",
        "structure_validity": "struct_valid",
        "validity": "valid",
        "n_readable": "n_sensible",
        "coverage_recall": "cov_recall",
        "coverage_precision": "cov_precision",
        "structure_distance_recall": "amsd_recall",
        "structure_distance_precision": "amsd_precision",
        "composition_distance_recall": "amcd_recall",
        "composition_distance_precision": "amcd_precision",
        "wasserstein_density": "wdist_density",
        "wasserstein_elements": "wdist_num_elems",
    }.items():
        assert getattr(ours, name) == pytest.approx(theirs[original], abs=1e-9), name
    assert ours.n_drawn == GOLDEN["n_samples"]
    # The original forgives what it cannot read; over all crystals precision is lower.
    assert ours.coverage_precision_of_all == pytest.approx(12 / 60)


@needs_matminer
def test_a_test_set_covers_itself(described) -> None:
    result = unconditional.score(described[1], described[1], CutOffs(0.0, 0.0))
    assert result.coverage_recall == result.coverage_precision == 1
    assert result.structure_distance_recall == result.composition_distance_precision == 0
    assert result.wasserstein_density == result.wasserstein_elements == 0


def test_the_order_of_the_crystals_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    samples = [crystal(rng.uniform(1, 9), where=rng.uniform(0, 3), valid=bool(i % 4)) for i in range(40)]
    truths = [crystal(rng.uniform(1, 9), where=rng.uniform(0, 3)) for _ in range(30)]
    first = unconditional.score(samples, truths, CutOffs(0.05, 0.05), n=9, seed=3)
    shuffled = [samples[i] for i in rng.permutation(40)], [truths[i] for i in rng.permutation(30)]
    second = unconditional.score(*shuffled, CutOffs(0.05, 0.05), n=9, seed=3)
    for name, value in dataclasses.asdict(first).items():
        assert getattr(second, name) == (pytest.approx(value) if isinstance(value, float) else value), name
    assert first.n_drawn == 9
    other = unconditional.score(samples, truths, CutOffs(0.05, 0.05), n=9, seed=4)
    assert other.wasserstein_density != first.wasserstein_density


def test_blocks_of_distances_are_one_table(monkeypatch) -> None:
    samples, truths = [crystal(2, where=x) for x in (0, 1, 5)], [crystal(2, where=x) for x in (0.5, 4)]
    whole = unconditional.score(samples, truths, CutOffs(0.6, 10))
    monkeypatch.setattr(fingerprints, "BLOCK", 2)
    assert unconditional.score(samples, truths, CutOffs(0.6, 10)) == whole
    assert whole.structure_distance_recall == pytest.approx((0.5 + 1) / 2)
    assert whole.structure_distance_precision == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert whole.coverage_recall == 1 / 2
    assert whole.coverage_precision == 2 / 3
    # Near enough must be both, the structure and the composition.
    assert unconditional.score(samples, truths, CutOffs(0.6, 0.4)).coverage_recall == 0


def test_nothing_readable_gives_zeros_and_no_distances() -> None:
    result = unconditional.score(
        [CrystalDescription(reason="no crystal")] * 3, [crystal(2)], CUT_OFFS["mp_20"]
    )
    assert (result.n_readable, result.n_drawn, result.validity, result.coverage_recall) == (0, 0, 0, 0)
    assert result.coverage_precision_of_all == 0
    assert math.isnan(result.coverage_precision)
    assert math.isnan(result.structure_distance_recall)
    assert math.isnan(result.wasserstein_density)


def test_what_was_asked_wrongly_is_said_before_any_work(monkeypatch) -> None:
    with pytest.raises(InputError, match="0 generated and 1 true crystals"):
        unconditional.evaluate([], ["data_x"], CUT_OFFS["mp_20"])
    with pytest.raises(InputError, match="n = 0"):
        unconditional.evaluate(["data_x"], ["data_x"], CUT_OFFS["mp_20"], n=0)
    for missing in ("smact", "matminer"):
        monkeypatch.setattr(
            fingerprints, "find_spec", lambda name, missing=missing: None if name == missing else True
        )
        with pytest.raises(CrystallmError, match=rf"needs {missing}: pip install 'crystallm\[bench\]'"):
            unconditional.evaluate(["data_x"], ["data_x"], CUT_OFFS["mp_20"])
