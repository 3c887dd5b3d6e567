"""Fingerprints and validity of single crystals."""

from __future__ import annotations

import gzip
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from crystallm.benchmarks import fingerprints, unconditional
from crystallm.benchmarks.fingerprints import CrystalDescription
from crystallm.benchmarks.unconditional import CUT_OFFS
from misbehaving import use_inline_pool

GOLDEN: dict[str, Any] = json.loads(
    gzip.decompress((Path(__file__).parents[1] / "golden" / "unconditional.json.gz").read_bytes())
)


needs_matminer = pytest.mark.skipif(
    find_spec("matminer") is None, reason="fingerprints need matminer: pip install 'crystallm[bench]'"
)


def _read(cif: str) -> Structure | None:
    try:
        return Structure.from_str(cif, fmt="cif")
    except ValueError:
        return None


@needs_matminer
@pytest.mark.usefixtures("kept")
def test_noble_gases_have_no_fingerprint_and_cost_only_themselves() -> None:
    argon = Structure(Lattice.cubic(5.3), ["Ar", "Na", "Cl"], np.array([[0] * 3, [0.5] * 3, [0.5, 0.5, 0]]))
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
    without, whole = fingerprints.describe([argon, salt])
    assert not without.readable
    assert without.structure_valid
    assert whole.readable
    assert whole.valid


def _describe_bare(sample: Structure | str) -> CrystalDescription:
    from crystallm.structures import conversion

    task = {"sample": json.dumps(conversion.to_json(sample)), "fingerprints": False}
    return fingerprints.from_record(fingerprints.describe_record(task))


def test_what_makes_a_crystal_valid() -> None:
    far = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
    salt = _describe_bare(Structure(Lattice.cubic(3.5), ["Cs", "Cl"], far))
    assert salt.valid
    assert not salt.reason
    assert salt.n_elements == 2
    assert salt.density == pytest.approx(168.358 / 6.02214 / 3.5**3 * 10, rel=1e-3)  # g/cm^3
    near = _describe_bare(Structure(Lattice.cubic(3.5), ["Cs", "Cl"], far * 0.1))
    assert near.composition_valid
    assert near.reason == "two atoms are 0.30 Å apart"
    odd = _describe_bare(Structure(Lattice.cubic(5), ["Na", "Na", "Cl"], np.vstack([far, [[0.5, 0, 0]]])))
    assert odd.structure_valid
    assert odd.reason == "its composition fails the SMACT test"
    flat = _describe_bare(Structure(Lattice.from_parameters(5, 5, 5, 90, 90, 9), ["Na"], [[0] * 3]))
    assert flat.reason == "its cell is not sensible"
    tiny = Lattice.from_parameters(0.5, 0.5, 0.5, 60, 60, 60)
    assert _describe_bare(Structure(tiny, ["Na"], [[0] * 3])).reason == "its volume is 0.088 Å^3"
    shared = _describe_bare(Structure(Lattice.cubic(4), [{"Na": 0.5, "K": 0.5}], [[0] * 3]))
    assert shared.reason == "its sites are shared"
    assert not shared.composition_valid


def test_atoms_on_top_of_each_other_leave_the_composition() -> None:
    heap = next(cif for cif in GOLDEN["generated"] if _read(cif) is None)
    found = _describe_bare(heap)
    assert found.composition_valid
    assert not found.structure_valid
    assert found.reason.startswith("no crystal: ")
    broken = _describe_bare(heap[: heap.index("_cell_angle_gamma")])
    assert not broken.composition_valid


def test_a_fingerprint_that_costs_its_process_leaves_the_validities(monkeypatch) -> None:
    calls = use_inline_pool(monkeypatch, lambda _, task: task["fingerprints"])
    monkeypatch.setattr(fingerprints, "find_spec", lambda _: True)
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
    first, nothing, second = fingerprints.describe([salt, None, salt.copy()])
    assert calls == ["describe_record"] * 2  # what is identical is described once
    assert first == second
    assert first.valid
    assert not first.readable
    assert first.reason == "no fingerprint: took longer than 1 s"
    assert nothing == CrystalDescription(reason="no crystal")


def test_a_lost_worker_costs_its_crystal_and_nothing_else(monkeypatch) -> None:
    monkeypatch.setattr(fingerprints, "find_spec", lambda _: True)
    result = unconditional.evaluate(["data_x", None], ["data_y"], CUT_OFFS["mp_20"], seconds=1e-4)
    assert result.reasons == ("no fingerprint: took longer than 0.0001 s", "no crystal")
    assert result.validity == 0
