"""Valid, unique, novel, stable: crystals told in another way are equal, and failures profit nobody."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

import real_crystals
from crystallm.benchmarks import novelty
from crystallm.errors import InputError
from crystallm.structures import conversion, duplicates
from misbehaving import use_inline_pool

CELLS = (
    [[1, 1, 0], [0, 1, 0], [0, 0, 2]],
    [[0, 1, 0], [1, 0, 0], [0, 0, 1]],
    [[1, 0, 0], [0, 1, 1], [0, 0, 1]],
)


def cif(structure: Structure) -> str:
    return str(structure.to(fmt="cif"))


def told(structure: Structure, seed: int = 0) -> Structure:
    return real_crystals.told_otherwise(structure, np.random.default_rng(seed), CELLS[seed % 3])


@pytest.fixture(scope="module")
def some() -> list[Structure]:
    """20 real crystals, no two of one formula."""
    by_formula = {s.composition.reduced_formula: s for s in real_crystals.structures() if len(s) <= 12}
    return list(by_formula.values())[:20]


def verdicts(result: novelty.NoveltyResult) -> list[tuple[bool, bool, bool]]:
    return [(v.valid, v.unique, v.novel) for v in result.crystals]


@pytest.mark.usefixtures("kept")
def test_the_known_set_itself_is_not_novel_however_it_is_told(some) -> None:
    known = [(f"k{i}", cif(structure)) for i, structure in enumerate(some)]
    samples = [told(structure, i) if i % 2 else cif(structure) for i, structure in enumerate(some)]
    result = novelty.evaluate(samples, known, workers=2, valid=[True] * len(some))
    assert [v.known for v in result.crystals] == [identifier for identifier, _ in known]
    assert result.overall.novel == 0
    assert result.overall.unique == 1
    assert result.overall.vun == 0
    assert (result.n_known, result.n_compared, result.n_undecided) == (20, 20, 0)


def test_a_crystal_told_in_another_cell_is_a_repeat(textbook_structures, inline) -> None:
    first = list(textbook_structures.values())
    again = [told(structure, seed) for seed in range(3) for structure in first]
    result = novelty.evaluate([*first, *again], [])
    assert [v.repeats for v in result.crystals] == [None] * 5 + [0, 1, 2, 3, 4] * 3
    assert result.overall.unique == pytest.approx(5 / 20)
    assert result.overall.novel == result.overall.valid == 1
    assert result.overall.vun == result.among_valid.vun == pytest.approx(5 / 20)
    assert math.isnan(result.overall.sun)


def test_polymorphs_are_different_crystals(inline) -> None:
    sphalerite = Structure.from_spacegroup("F-43m", Lattice.cubic(5.41), ["Zn", "S"], [[0] * 3, [0.25] * 3])
    rock_salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.06), ["Zn", "S"], [[0] * 3, [0.5] * 3])
    result = novelty.evaluate([sphalerite, rock_salt], [("zincblende", cif(told(sphalerite)))])
    assert verdicts(result) == [(True, True, False), (True, True, True)]
    assert result.crystals[0].known == "zincblende"


def test_the_order_of_the_crystals_changes_no_rate(some, inline) -> None:
    samples: list[Any] = [*some[:6], *(told(s) for s in some[:3]), None, "data_x"]
    energies = [0.0, 0.05, 0.2, None, -0.1, 0.1, 0.0, 0.05, 0.2, 0.0, None]
    valid = [True] * 9 + [False] * 2
    known = [("a", cif(some[1])), ("b", cif(some[4]))]
    first = novelty.evaluate(samples, known, valid=valid, e_above_hull=energies)
    order = np.random.default_rng(2).permutation(len(samples)).tolist()
    second = novelty.evaluate(
        [samples[i] for i in order],
        known[::-1],
        valid=[valid[i] for i in order],
        e_above_hull=[energies[i] for i in order],
    )
    assert second.overall == first.overall
    assert second.among_valid == first.among_valid
    assert first.overall.n == 11
    assert first.among_valid.n == 9
    assert first.overall.vun == pytest.approx(4 / 11)


def test_energies_give_the_stable_ones(textbook_structures, inline) -> None:
    samples = list(textbook_structures.values())
    energies = [3e-16, 0.1 + 1e-9, 0.1001, -0.3, None]  # rounding puts the first two above the bounds
    result = novelty.evaluate(samples, [("salt", cif(samples[0]))], e_above_hull=energies)
    assert [v.stable for v in result.crystals] == [True, False, False, True, False]
    assert [v.metastable for v in result.crystals] == [True, True, False, True, False]
    rates = result.overall
    assert (rates.stable, rates.metastable, rates.sun, rates.msun) == pytest.approx((0.4, 0.6, 0.2, 0.4))


def test_the_first_valid_one_of_equals_is_the_unique_one(some, inline) -> None:
    result = novelty.evaluate([some[0], told(some[0]), some[0].copy()], [], valid=[False, True, True])
    assert [v.unique for v in result.crystals] == [False, True, False]
    assert [v.repeats for v in result.crystals] == [1, None, 1]
    assert result.overall.vun == pytest.approx(1 / 3)


def test_crystals_are_judged_by_the_papers_checks(some, inline) -> None:
    squeezed = some[0].copy()
    squeezed.scale_lattice(squeezed.volume * 0.1)
    result = novelty.evaluate([some[0], cif(some[1]), squeezed], [])
    assert [v.valid for v in result.crystals] == [True, True, False]
    assert result.crystals[2].repeats == 0  # volumes are scaled to each other, as the matcher does by default


def test_what_cannot_be_read_is_neither_unique_nor_novel(some, inline) -> None:
    shared = Structure(Lattice.cubic(4), [{"Na": 0.5, "K": 0.5}], [[0] * 3])
    needle = Structure(Lattice.from_parameters(0.6, 0.6, 900, 90, 90, 90), ["Na"], [[0] * 3])
    result = novelty.evaluate([None, "data_x nonsense", shared, needle, some[0]], [], valid=[True] * 5)
    assert verdicts(result)[:4] == [(True, False, False)] * 4
    assert [v.reason.split(":")[0] for v in result.crystals] == [
        "no crystal",
        "no crystal",
        "its sites are shared",
        "its cell is too long or too flat to be compared",
        "",
    ]
    assert result.n_undecided == 4
    assert result.overall.vun == pytest.approx(1 / 5)


def test_known_crystals_that_cannot_be_read_are_counted(some, inline) -> None:
    text = cif(some[0])
    cut = text[: text.index("_cell_length_b")] + text[text.index("_chemical_formula_sum") :]
    known = [("cut", cut), ("empty", ""), ("whole", text)]
    result = novelty.evaluate([some[0]], known)
    assert (result.n_known, result.n_compared, result.n_unreadable) == (3, 1, 2)
    assert result.crystals[0].known == "whole"


def test_known_crystals_come_from_collections_of_any_kind(some, inline, tmp_path) -> None:
    record: dict[str, Any] = some[1].as_dict()
    broken: dict[str, Any] = {"id": "broken", "structure": record | {"sites": []}}
    items = [{"id": "json", "structure": record}, broken]
    (tmp_path / "known.json").write_text(json.dumps(items))
    (tmp_path / "known.cif").write_text(cif(some[0]))
    known = novelty.read_known([tmp_path / "known.json", str(tmp_path / "known.cif")])
    result = novelty.evaluate(some[:2], known, valid=[True] * 2)
    assert [v.known for v in result.crystals] == ["known", "json"]
    assert (result.n_known, result.n_compared, result.n_unreadable) == (3, 2, 1)


def test_a_freak_costs_only_itself(some, monkeypatch) -> None:
    base = some[0]
    twins = [told(base, seed) for seed in range(7)]
    freak = base.copy()
    freak.perturb(0.01, seed=1)
    mark = duplicates.reduce_record({"sample": json.dumps(conversion.to_json(freak))})["primitive"]

    def is_lost(name: str, task: Any) -> bool:
        if name == "compare_record":
            return mark in task["new"]
        return name == "match_record" and mark in task["generated"]

    use_inline_pool(monkeypatch, is_lost)
    samples = [base, *twins[:4], freak, *twins[4:]]
    result = novelty.evaluate(samples, [("k", cif(base))], valid=[True] * 9)
    assert [v.repeats for v in result.crystals] == [None, 0, 0, 0, 0, None, 0, 0, 0]
    assert [v.known for v in result.crystals] == ["k"] * 5 + [None] + ["k"] * 3
    assert verdicts(result)[5] == (True, False, False)
    assert result.crystals[5].reason == "not told from others: took longer than 1 s"
    assert result.n_undecided == 1


def test_a_known_crystal_that_cannot_be_compared_makes_nothing_novel(some, monkeypatch) -> None:
    use_inline_pool(monkeypatch, lambda name, _: name == "match_record")
    result = novelty.evaluate([some[0], some[1], some[1].copy()], [("k", cif(some[1]))], valid=[True] * 3)
    assert [v.novel for v in result.crystals] == [True, False, False]
    assert result.crystals[2].reason == "not compared with all: took longer than 1 s"
    assert result.n_undecided == 2


def test_a_lost_worker_costs_its_crystal(some) -> None:
    result = novelty.evaluate([some[0]], [], seconds=1e-4)
    assert verdicts(result) == [(False, False, False)]
    assert result.crystals[0].reason == "not compared: took longer than 0.0001 s"


def test_identical_crystals_are_compared_once(some, inline) -> None:
    stages: dict[str, tuple[int, int]] = {}
    result = novelty.evaluate(
        [some[0].copy() for _ in range(30)],
        [("k", cif(some[0]))] * 40,
        valid=[True] * 30,
        on_done=lambda stage, done, total: stages.update({stage: (done, total)}),
    )
    # 40 known ones: read at once, compared in two blocks
    assert inline == ["reduce_record", "formulas_record", "match_record", "match_record"]
    assert [v.repeats for v in result.crystals] == [None] + [0] * 29
    assert result.overall.novel == 0
    assert stages == {
        "reading": (1, 1), "telling apart": (0, 0), "known": (40, 0), "comparing": (2, 2)
    }  # fmt: skip


def test_what_was_asked_wrongly_is_said_before_any_work(some) -> None:
    with pytest.raises(InputError, match="no generated crystals"):
        novelty.evaluate([], [])
    with pytest.raises(InputError, match="2 values of valid for 1 crystals"):
        novelty.evaluate(some[:1], [], valid=[True, True])
    with pytest.raises(InputError, match="0 energies for 1 crystals"):
        novelty.evaluate(some[:1], [], e_above_hull=[])
    with pytest.raises(InputError, match="can't compare int"):
        novelty.evaluate([3], [])  # type: ignore[list-item]


def test_results_hold_all_that_the_rates_rest_on(some, inline) -> None:
    result = novelty.evaluate(some[:3], [], valid=[True, True, False])
    assert novelty.rates(result.crystals, with_energies=False).vun == result.overall.vun
    assert dataclasses.is_dataclass(result)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.n_known = 1  # type: ignore[misc]
