"""Match rate and RMSE: the paper's figures on 95 entries, and what makes a sample count."""

from __future__ import annotations

import gzip
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from crystallm.benchmarks import csp, metrics
from crystallm.cif import structure_reader
from crystallm.errors import CrystallmError, InputError
from crystallm.sources import parsing

GOLDEN: dict[str, Any] = json.loads(
    gzip.decompress((Path(__file__).parents[1] / "golden" / "csp.json.gz").read_bytes())
)


ENTRIES: list[dict[str, Any]] = GOLDEN["entries"]


@pytest.fixture(scope="module")
def rock_salt() -> Structure:
    """NaCl, Fm-3m, a = 5.64 Å (Wyckoff, Crystal Structures)."""
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0] * 3, [0.5] * 3])


@pytest.mark.usefixtures("kept")
def test_the_figures_are_the_papers() -> None:
    truths = [structure_reader.structure(entry["truth"]) for entry in ENTRIES]
    # Half of the samples as texts, half as structures: both come out alike.
    samples = [
        entry["samples"] if i % 2 else [structure_reader.structure(cif) for cif in entry["samples"]]
        for i, entry in enumerate(ENTRIES)
    ]
    distances = csp.distances(truths, samples, workers=2, symmetrise=False)
    rms = [[d.rms if d.passes_smact else None for d in row] for row in distances]
    for entry, row in zip(ENTRIES, rms, strict=True):
        assert row == [r if r is None else pytest.approx(r, abs=1e-9) for r in entry["rms"]]
    assert len(rms) == 95
    for n in (1, 4):
        line = metrics.line("", n, metrics.best_of(rms, n))
        assert line.match_rate == pytest.approx(GOLDEN["expected"][str(n)]["match_rate"], abs=1e-12)
        assert line.rmse == pytest.approx(GOLDEN["expected"][str(n)]["rmse"], abs=1e-9)


def test_scores_are_over_all_entries_and_the_best_of_the_first_n() -> None:
    rms = [[None, 0.3, 0.1], [0.2], [], [None, None]]
    lines = [metrics.line("", n, metrics.best_of(rms, n)) for n in (1, 2, 20)]
    assert [line.match_rate for line in lines] == [0.25, 0.5, 0.5]
    assert [line.rmse for line in lines] == pytest.approx([0.2, 0.25, 0.15])
    assert metrics.best_of(rms, 2) == [0.3, 0.2, None, None]
    assert math.isnan(metrics.line("", 1, [None]).rmse)


def test_a_sample_counts_only_if_it_is_a_sound_crystal(rock_salt: Structure) -> None:
    def reason(sample: Structure, *, smact: bool = True) -> str:
        rms, why = csp.compare(rock_salt, sample, composition_test=smact)
        assert rms is None
        return why

    close = Structure(Lattice.cubic(4), ["Na", "Cl"], np.array([[0, 0, 0], [0.1, 0, 0]]))
    assert reason(close) == "two atoms are 0.40 Å apart"
    assert reason(Structure(Lattice.cubic(0.48), ["Na"], [[0] * 3])) == "its cell is not sensible"
    acute = Lattice.from_parameters(5, 5, 5, 90, 90, 9)
    assert reason(Structure(acute, ["Na"], [[0] * 3])) == "its cell is not sensible"
    tiny = Lattice.from_parameters(0.5, 0.5, 0.5, 60, 60, 60)
    assert reason(Structure(tiny, ["Na"], [[0] * 3])).startswith("its volume is 0.088")
    odd = Structure(Lattice.cubic(6), ["Na", "Na", "Cl"], np.array([[0] * 3, [0.5] * 3, [0.5, 0, 0]]))
    assert reason(odd) == "its composition fails the SMACT test"
    assert reason(odd, smact=False) == "its formula is Na2Cl"
    rms, why = csp.compare(rock_salt, rock_salt.copy())
    assert rms == pytest.approx(0, abs=1e-9)
    assert not why


def test_a_match_sees_through_the_choice_of_cell(rock_salt: Structure) -> None:
    sample = rock_salt.get_primitive_structure()
    sample.apply_strain(0.05)
    rms, _ = csp.compare(rock_salt, sample)
    assert rms == pytest.approx(0, abs=1e-6)


@pytest.mark.usefixtures("kept")
def test_truths_are_symmetrised_and_bad_samples_cost_only_themselves(rock_salt: Structure) -> None:
    shaken = rock_salt.copy()
    shaken.perturb(0.02, seed=1)  # less than symprec: the truth is rock salt again
    samples = ["data_Na1 nonsense", None, rock_salt, rock_salt.copy()]
    (row,) = csp.distances([shaken], [samples])
    assert row[0].reason.startswith("no crystal: it is not a CIF")
    assert [distance.reason for distance in row[1:]] == ["no crystal", "", ""]
    assert row[0].rms is row[1].rms is None
    assert row[2].rms == row[3].rms == pytest.approx(0, abs=1e-6)
    ((raw, _),) = csp.distances([shaken], [samples[2:]], symmetrise=False)
    assert raw.rms > 1e-3


@pytest.mark.usefixtures("kept")
def test_a_reference_whose_operators_cannot_be_read_stays_as_it_is(
    rock_salt: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pymatgen prints such operators of a distorted structure, as of mp-680679."""
    text = parsing.to_cif(rock_salt).replace("x, y, z", "-x, -y, -z+365/366")
    assert "365/366" in text
    monkeypatch.setattr(parsing, "to_cif", lambda *_, **__: text)
    assert csp.symmetrize(rock_salt) == rock_salt


def test_equal_samples_are_compared_once(rock_salt: Structure) -> None:
    done: list[int] = []
    (row,) = csp.distances([rock_salt], [[rock_salt.copy() for _ in range(20)]], on_done=done.append)
    assert done == [0]
    assert len(row) == 20
    assert None not in [distance.rms for distance in row]


def test_a_comparison_that_takes_too_long_is_no_match(rock_salt: Structure) -> None:
    ((distance,),) = csp.distances([rock_salt], [[rock_salt]], seconds=1e-4)
    assert distance == csp.Distance(None, "not compared: took longer than 0.0001 s")


def test_what_was_asked_wrongly_is_said_before_any_work(
    rock_salt: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="can't compare int"):
        csp.distances([rock_salt], [[3]], composition_test=False)  # type: ignore[list-item]
    monkeypatch.setattr(csp, "find_spec", lambda _: None)
    with pytest.raises(CrystallmError, match=r"pip install 'crystallm\[bench\]'"):
        csp.distances([rock_salt], [[rock_salt]])


def test_the_module_loads_no_heavy_library() -> None:
    import subprocess

    code = "import sys, crystallm.benchmarks.csp, crystallm.validity as v; h = "
    code += "{'pymatgen.core', 'smact', 'torch', 'spglib', 'scipy'}; print(sorted(h & sys.modules.keys()))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
