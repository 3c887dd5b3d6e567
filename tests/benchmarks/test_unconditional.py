"""Validity, coverage, Wasserstein distances: the original's figures on 60 crystals, what they rest on."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from crystallm.benchmarks import fingerprints, unconditional
from crystallm.benchmarks.fingerprints import CrystalDescription
from crystallm.benchmarks.unconditional import CUT_OFFS, CutOffs
from crystallm.cli.app import run
from crystallm.errors import CrystallmError, InputError
from crystallm.execution import mapping
from crystallm.execution import tasks as execution_tasks

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
    with mapping.kept():
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
    asked = []

    def run(function: str, tasks: list[Any], **_: Any) -> list[Any]:
        asked.append(len(tasks))
        return [
            execution_tasks.Failure("took longer than 1 s")
            if task["fingerprints"]
            else fingerprints.describe_record(task)
            for task in tasks
        ]

    monkeypatch.setattr(mapping, "run", run)
    monkeypatch.setattr(fingerprints, "find_spec", lambda _: True)
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
    first, nothing, second = fingerprints.describe([salt, None, salt.copy()])
    assert asked == [1, 1]  # what is identical is described once
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


def command(*words: object) -> int:
    return run(["benchmark", *map(str, words)])


def test_the_command_scores_a_folder(monkeypatch, tmp_path, capsys) -> None:
    (tmp_path / "made").mkdir()
    for i, cif in enumerate(GOLDEN["truth"][:2]):
        (tmp_path / "made" / f"{i}.cif").write_text(cif)
    (tmp_path / "made" / "empty.cif").touch()

    def evaluate(samples: list[Any], truths: list[Any], cut_offs: CutOffs, **options: Any) -> Any:
        assert truths == GOLDEN["truth"][:2]
        assert samples == [*truths, None]
        assert options["n"] == 7
        found = [crystal(2.0), crystal(3.0), CrystalDescription(reason="no crystal")]
        return unconditional.score(found, found[:2], cut_offs)

    monkeypatch.setattr(unconditional, "evaluate", evaluate)
    truth = tmp_path / "truth"
    truth.mkdir()
    for i, cif in enumerate(GOLDEN["truth"][:2]):
        (truth / f"{i}.cif").write_text(cif)
    asked = ("--truth", truth, "--cutoffs", "perov_5", "-n", 7, "--out", tmp_path / "a.json")
    assert command("unconditional", tmp_path / "made", "--json", *asked) == 0
    printed = json.loads(capsys.readouterr().out)
    kept = json.loads((tmp_path / "a.json").read_text())
    assert printed["validity"] == pytest.approx(2 / 3)
    assert printed["coverage_precision"] == 1
    assert kept == printed | {"reasons": {"empty": "the file is empty"}}
    assert command("unconditional", tmp_path / "made", *asked) == 0
    shown = capsys.readouterr().out
    assert "coverage precision of all, %" in shown
    assert "66.67" in shown
    assert command("unconditional", tmp_path / "made", "--quiet", *asked) == 0
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "no crystals"),
        (("PLACE",), "no test set"),
        (("PLACE", "--truth", "PLACE"), "write one of perov_5, carbon_24, mp_20 with --cutoffs"),
        (("PLACE", "--truth", "PLACE", "--cutoffs", "mp_20", "--out", "a.txt"), "ends in .json"),
        (("--config", "CONFIG"), "mp_21"),
    ],
)
def test_the_command_says_what_it_lacks(tmp_path, capsys, options, says) -> None:
    paths = {"PLACE": tmp_path / "a.cif", "CONFIG": tmp_path / "options.yaml"}
    paths["PLACE"].write_text(GOLDEN["truth"][0])
    paths["CONFIG"].write_text("generated: nowhere\ntruth: nowhere\ncutoffs: mp_21\n")
    assert command("unconditional", *(paths.get(word, word) for word in options)) == 2
    assert says in capsys.readouterr().err


def test_the_module_loads_no_heavy_library() -> None:
    code = "import sys, crystallm.benchmarks.unconditional, crystallm.cli.commands.benchmark.generated; h = "
    code += "{'pymatgen.core', 'smact', 'matminer', 'torch', 'numpy', 'scipy', 'pandas', 'rich.table'}; "
    code += "print(sorted(h & sys.modules.keys()))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
