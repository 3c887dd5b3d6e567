"""Crystals of requests from known crystals, alone and beside a network."""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

import pytest

import crystallm
from crystallm.errors import InputError
from crystallm.execution.pool import Inline
from crystallm.generation.analogues import AnalogueGenerator, CombinedGenerator, make_generator
from crystallm.generation.request import Request, SamplingOptions, with_default_z
from crystallm.models.load import open_model
from crystallm.models.model import UnreadNetwork
from crystallm.references.options import ReferenceOptions
from known_crystals import library


def generator(*requests: Request, **options: object) -> AnalogueGenerator:
    return AnalogueGenerator(
        library(), [with_default_z(request) for request in requests], SamplingOptions(), **options
    )


def test_crystals_come_best_first_with_their_relatives() -> None:
    made = generator(Request(formula="CaTiO3", n=3), Request(formula="GeO2", n=1))
    perovskites, (rutile,) = made.generate([0, 1])
    assert [crystal.space_group for crystal in perovskites] == ["Pm-3m", "Pm-3m"]
    assert perovskites[0].log_likelihood > perovskites[1].log_likelihood
    row = rutile.row()
    assert (row["relative"], row["relative_formula"], row["formula"]) == ("rutile-SnO", "SnO2", "Ge2O4")
    assert row["relative_distance"] > 0
    assert (row["model"], row["sample_index"]) == ("references", 3)


def test_later_samples_are_the_next_candidates() -> None:
    whole = next(generator(Request(formula="CaTiO3", n=2)).generate([0]))
    second = next(generator(Request(formula="CaTiO3", n=1), starts=[1]).generate([0]))
    assert [crystal.text for crystal in second] == [whole[1].text]


def test_a_cell_and_a_group_are_kept() -> None:
    made = generator(Request(formula="Be4O4", n=5), Request(formula="BeO", space_group="P6_3mc", n=5))
    salts, wurtzites = made.generate([0, 1])
    assert [crystal.space_group for crystal in salts] == ["Fm-3m"]
    assert [crystal.space_group for crystal in wurtzites] == ["P6_3mc"]


def test_valid_ones_are_counted() -> None:
    (crystals,) = generator(Request(formula="KCl", n=1), executor=Inline()).generate_valid([0])
    assert crystals[-1].validity.valid


def test_a_formula_is_needed() -> None:
    with pytest.raises(InputError, match="looked up by a formula"):
        generator(Request(elements="Na-Cl"))


def test_a_network_fills_what_relatives_leave(parrot) -> None:
    from crystallm.models.load import load_model

    requests = [Request(formula="Na4Cl4", n=4), Request(formula="Ti2O7", n=2), Request(elements="Na-Cl", n=2)]
    both = CombinedGenerator(load_model(parrot), library(), requests, SamplingOptions(model=str(parrot)))
    first, second, third = both.generate([0, 1, 2])
    assert [crystal.source.relative is not None for crystal in first] == [True, False, False, False]
    assert [crystal.source.index for crystal in first] == [0, 1, 2, 3]
    assert [crystal.source.relative for crystal in second + third] == [None] * 4


def test_the_network_is_read_only_where_relatives_do_not_suffice(parrot) -> None:
    def read() -> NoReturn:
        raise AssertionError("the network is read")

    model = replace(open_model(parrot), weights=UnreadNetwork(read))
    requests = [Request(formula="Na4Cl4", n=1), Request(formula="Ti2O7", n=1)]
    both = CombinedGenerator(model, library(), requests, SamplingOptions())
    both.check()
    (crystals,) = both.generate([0])
    assert [crystal.source.relative is not None for crystal in crystals] == [True]
    with pytest.raises(AssertionError, match="the network is read"):
        list(both.generate([1]))


def test_few_relatives_are_looked_up_before_the_first_crystal_of_a_long_list(parrot, monkeypatch) -> None:
    from crystallm.generation import analogues
    from crystallm.models.load import load_model

    looked_up: list[str] = []
    find = analogues.find_analogues

    def count(library, composition, *args, **how):
        looked_up.append(str(composition))
        return find(library, composition, *args, **how)

    monkeypatch.setattr(analogues, "find_analogues", count)
    requests = [Request(formula="Na4Cl4", n=1)] * 100
    both = CombinedGenerator(load_model(parrot), library(), requests, SamplingOptions(model=str(parrot)))
    counts: list[int] = []
    crystals = both.generate(range(100), progress=counts.append)
    next(crystals)
    assert len(looked_up) == counts[-1] == analogues.FEWEST
    assert len(list(crystals)) == 99
    assert counts == sorted(counts)
    assert counts[-1] == 100


def test_python_gives_them_too(tmp_path) -> None:
    library().write(tmp_path / "l.parquet")
    known = ReferenceOptions(crystals_from="references", references=(tmp_path / "l.parquet",))
    (best, _) = crystallm.generate("CaTiO3", n=5, known=known)
    assert (best.space_group, best.source.relative.formula) == ("Pm-3m", "SrTiO3")


def test_a_model_that_reads_nothing_cannot_be_told_to(parrot) -> None:
    from crystallm.models.load import load_model

    with pytest.raises(InputError, match="reads no known crystals: take --from both, or train one"):
        make_generator(
            load_model(parrot),
            [Request(formula="NaCl", n=1)],
            SamplingOptions(model=str(parrot)),
            None,
            library(),
            reading=True,
        )
