from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pymatgen.core import Composition

import crystallm
import random_models
from crystallm.cif import tokenizer
from crystallm.crystals.selection import SelectionOptions
from crystallm.errors import CheckpointError, InputError
from crystallm.generation import assignment as generation_assignment
from crystallm.generation import generator as generation_generator
from crystallm.generation.generator import Generator
from crystallm.generation.interpretation import interpret
from crystallm.generation.request import Request, SamplingOptions
from crystallm.language import get_language
from crystallm.models.load import load_model
from crystallm.models.model import Model
from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT
from crystallm.orbits import vocabulary
from known_crystals import library


@pytest.fixture(scope="module")
def model(parrot) -> Model:
    return load_model(parrot, device="cpu")


@pytest.fixture
def babbler() -> Model:
    """A network of the published language that has learned nothing."""
    torch.manual_seed(0)
    config = ModelConfig(
        language="cif", vocab_size=len(tokenizer.vocabulary()), context=64, n_layer=1, n_head=2, n_embd=16
    )
    return Model("babbler", GPT(config).eval(), get_language("cif"), config)


def test_three_lines_of_python_give_rutile(parrot):
    crystals = crystallm.generate("TiO2", z=2, space_group="P4_2/mnm", n=3, model=str(parrot), seed=1)
    assert len(crystals) == 3
    assert next(crystal.space_group for crystal in crystals if crystal.validity.valid) == "P4_2/mnm"


def test_a_crystal_says_where_it_comes_from(model):
    first, second = crystallm.generate("C8", n=2, model=model, seed=5)
    assert (first.source.model, first.source.seed, first.source.index) == ("parrot", 5, 0)
    assert second.source.index == 1
    assert first.source.request == "cell as written: C8 = 8 x C"


def test_a_reduced_formula_is_tried_in_likely_cells(model):
    (crystal,) = crystallm.generate("ZnS", n=1, model=model, seed=5)
    assert crystal.structure.composition.get_el_amt_dict() == {"Zn": 2, "S": 2}
    assert crystal.source.z_probability > 0.9
    (one,) = crystallm.generate("ZnS", z=1, n=1, model=model, seed=5)
    assert one.source.request == "z = 1: cell ZnS"
    assert one.source.z_probability is None


def test_the_seed_is_0_unless_given_and_none_draws_one_that_gives_the_same_again(model):
    def told(**seed):
        crystals = crystallm.generate("NaCl", z=4, n=2, model=model, temperature=2.0, **seed)
        return [crystal.ids for crystal in crystals], crystals[0].source.seed

    assert told() == told(seed=0)
    once = told(seed=None)
    assert told(seed=once[1]) == once
    assert told(seed=None)[1] != once[1]
    settings = SamplingOptions(seed=7, temperature=2.0)
    assert told(settings=settings)[1] == 7


def test_a_formula_is_a_text_a_composition_or_a_structure(model, textbook_structures, tmp_path):
    def of(formula, **more):
        return crystallm.generate(formula, n=1, model=model, seed=1, **more)[0].source.request

    assert of(Composition("Ti2O4")) == of("Ti2O4")
    # A structure in whichever cell names its compound.
    assert of(textbook_structures["rutile"], z=2) == of("TiO2", z=2)
    path = tmp_path / "rutile.cif"
    textbook_structures["rutile"].to(str(path))
    assert of("TiO2", template=path) == of("TiO2", template=textbook_structures["rutile"])
    for other in (7, {"TiO2", "NaCl"}, ["TiO2", 7]):
        with pytest.raises(InputError, match="a formula of type (int|set)"):
            of(other)


def test_a_list_of_formulas_gives_a_list_for_each(model, textbook_structures):
    formulas = ["NaCl", Composition("ZnS"), textbook_structures["rutile"]]
    best = SelectionOptions(best=2)
    crystals = crystallm.generate(formulas, n=3, model=model, seed=1, selection=best)
    assert [len(of_one) <= 2 for of_one in crystals] == [True] * 3
    reduced = [{c.structure.composition.reduced_formula for c in of_one} for of_one in crystals]
    assert reduced == [{"NaCl"}, {"ZnS"}, {"TiO2"}]
    # As of the same requests in a file.
    requests = [Request(formula="Na4Cl4", n=2), Request(formula="Zn2S2", n=2)]
    rows = list(Generator(model, requests, SamplingOptions(seed=1)).generate([0, 1]))
    listed = crystallm.generate(("Na4Cl4", "Zn2S2"), n=2, model=model, seed=1)
    assert [[c.ids for c in of_one] for of_one in listed] == [[c.ids for c in of_one] for of_one in rows]
    assert crystallm.generate([], model=model) == []
    like = crystallm.generate(["MgO", "LiF"], template=textbook_structures["rocksalt"], n=1, model=model)
    assert [c.space_group for (c,) in like] == ["Fm-3m", "Fm-3m"]


def test_fewer_distinct_crystals_than_the_best_that_were_wanted_are_said(model, caplog):
    best = crystallm.generate(
        "TiO2", z=2, n=4, selection=SelectionOptions(best=3), model=model, temperature=0
    )
    assert len(best) == 1
    assert "TiO2: distinct crystals: 1, fewer than the best 3" in caplog.text


def test_with_constraints_every_crystal_has_the_formula(model):
    # Asked for what it has never seen, the network alone writes what it knows.
    for crystal in crystallm.generate("MgO", z=4, space_group=225, n=8, model=model, temperature=2.0, seed=0):
        assert crystal.structure.composition.get_el_amt_dict() == {"Mg": 4, "O": 4}


def test_a_network_that_babbles_gives_broken_crystals_that_say_why():
    torch.manual_seed(0)
    config = ModelConfig(
        language="orbits", vocab_size=len(vocabulary.vocabulary()), context=64, n_layer=1, n_head=2, n_embd=16
    )
    babbler = Model("babbler", GPT(config).eval(), get_language("orbits"), config)
    crystals = crystallm.generate("TiO2", n=3, model=babbler, seed=0, constraints="none")
    assert len(crystals) == 3
    for crystal in crystals:
        verdict = crystal.validity
        assert not verdict.valid
        assert verdict.reasons
        assert crystal.row()["reasons"]


def test_what_is_wrong_is_said_before_a_model_is_loaded(monkeypatch):
    monkeypatch.setattr("crystallm.models.load.open_model", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(InputError, match="Xx is not an element"):
        crystallm.generate("Xx", model="nowhere")
    with pytest.raises(InputError, match="no space group"):
        crystallm.generate("TiO2", space_group="P9", model="nowhere")


def test_missing_weights_are_named():
    with pytest.raises(CheckpointError, match="nowhere"):
        crystallm.generate("TiO2", model="nowhere")


def test_a_prompt_longer_than_the_context_is_refused(babbler):
    with pytest.raises(InputError, match="tokens, and the context of the model 'babbler' holds 64"):
        Generator(babbler, [Request(prompt="data_" + "Na4Cl4" * 20)], SamplingOptions())


def test_a_group_without_a_token_is_refused(babbler):
    with pytest.raises(InputError, match="no token for the space group P6"):
        crystallm.generate("TiO2", z=3, space_group="P6", model=babbler)


def test_requests_are_numbered_through(model):
    requests = [Request(formula="C8", n=3), Request(formula="Na4Cl4", n=2)]
    first, second = Generator(model, requests, SamplingOptions(seed=9)).generate([0, 1])
    assert [crystal.source.index for crystal in [*first, *second]] == [0, 1, 2, 3, 4]


def test_progress_counts_crystals(model):
    seen = []
    list(
        Generator(model, [Request(formula="C8", n=5)], SamplingOptions()).generate([0], progress=seen.append)
    )
    assert seen == [1, 2, 3, 4, 5]


def test_a_request_says_how_it_was_read():
    plan = interpret(Request(formula="Ti2O4", space_group="P 42/m n m"))
    assert plan.note == "cell as written: Ti2O4 = 2 x TiO2, P4_2/mnm (no. 136)"
    assert interpret(Request()).note == "no formula: the network chooses"


def test_settings_refuse_unknown_keys_and_values():
    with pytest.raises(InputError, match="unknown option 'temprature': did you mean temperature"):
        SamplingOptions.build({"temprature": 1.0})
    with pytest.raises(InputError, match="top_p = '0': input should be greater than 0"):
        SamplingOptions.build({"top_p": 0})
    with pytest.raises(ValueError, match="frozen"):
        SamplingOptions().seed = 1


# -- until enough are valid, and the best of them


@pytest.fixture
def here(monkeypatch, inline):
    """Crystals are checked in this process, too."""
    from crystallm.validity import checks

    monkeypatch.setattr(checks, "check_many", lambda texts, **_: [checks.check(text) for text in texts])


WILD = SamplingOptions(seed=4, temperature=5.0, top_k=None)
"""Hot enough that the parrot writes crystals it has not learned, some of them not valid."""


def test_writing_goes_on_until_enough_are_valid(model, here):
    selection = SelectionOptions(only_valid=True, max_attempts=60)
    generator = Generator(model, [Request(formula="ZnS", z=2, n=4)], WILD, selection)
    seen = []
    (found,) = generator.generate_valid([0], progress=seen.append)
    assert sum(crystal.validity.valid for crystal in found) == 4
    assert found[-1].validity.valid
    assert len(found) > 4
    assert [crystal.source.index for crystal in found] == list(range(len(found)))
    assert seen[-1] == 4


def test_the_valid_ones_do_not_depend_on_how_many_are_written_at_a_time(model, here, monkeypatch):
    def texts():
        requests = [Request(formula=name, z=2, n=3) for name in ("ZnS", "TiO2")]
        generator = Generator(model, requests, WILD, SelectionOptions(only_valid=True, max_attempts=40))
        return [[crystal.ids for crystal in found] for found in generator.generate_valid([0, 1])]

    together = texts()
    monkeypatch.setattr(generation_generator, "CHECKED_TOGETHER", 1)
    monkeypatch.setattr(Generator, "_next_batch_size", _one_more)
    assert texts() == together


def _one_more(generator, unit, found):
    missing = generator.plans[unit].request.n - sum(crystal.validity.valid for crystal in found)
    return min(max(missing, 0), 1, generator._attempts[unit] - len(found))


def test_a_bound_ends_a_search_in_vain(model, here, caplog, monkeypatch):
    from crystallm.validity import checks
    from crystallm.validity import verdict as validity_verdict

    bad = validity_verdict.Validity(True, True, True, 0.5, True, False, ("bonds",))  # noqa: FBT003
    monkeypatch.setattr(checks, "check_many", lambda texts, **_: [bad for _ in texts])
    found = crystallm.generate(
        "TiO2", n=2, selection=SelectionOptions(only_valid=True, max_attempts=5), model=model, seed=0
    )
    assert found == []
    assert "TiO2: 0 of 2 crystals are plausible after 5 attempts" in caplog.text


def test_python_gives_the_best_distinct_ones(model, here):
    options = {"model": model, "temperature": 3.0, "top_k": None, "seed": 3}
    ranked = crystallm.generate("ZnS", z=2, n=12, selection=SelectionOptions(rank="likelihood"), **options)
    assert len(ranked) == 12
    assert [crystal.rank for crystal in ranked if crystal.rank] == list(
        range(1, 1 + sum(crystal.rank is not None for crystal in ranked))
    )
    best = crystallm.generate(
        "ZnS", z=2, n=12, selection=SelectionOptions(best=2, rank="likelihood"), **options
    )
    assert [crystal.ids for crystal in best] == [crystal.ids for crystal in ranked[:2]]
    assert len({crystal.cluster for crystal in best}) == len(best)
    distinct = [
        crystal for i, crystal in enumerate(ranked) if crystal.cluster not in {c.cluster for c in ranked[:i]}
    ]
    plausible = [crystal.validity.plausible for crystal in distinct]
    assert plausible == sorted(plausible, reverse=True)
    assert plausible[0]


def test_what_cannot_fill_the_group_is_said_before_a_model_is_loaded(monkeypatch):
    monkeypatch.setattr("crystallm.models.load.open_model", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(InputError, match="3 formula units of TiO2 cannot fill Fm-3m"):
        crystallm.generate("TiO2", z=3, space_group=225, model="nowhere")
    with pytest.raises(InputError, match="z = 'many'"):
        crystallm.generate("TiO2", z="many", model="nowhere")


def test_crystals_of_the_bundled_model_do_not_depend_on_the_batch():
    # Short texts beside long ones, forced runs and texts that are taken back.
    model = load_model("default", device="cpu")
    requests = [
        Request(formula=formula, z=z, n=n)
        for formula, z, n in [
            ("NaCl", 4, 6),
            ("TiO2", "auto", 8),
            ("Li5Gd4Pt4F28", None, 1),
            ("V5O12", None, 2),
        ]
    ]
    written = [
        [
            crystal.ids
            for found in Generator(model, requests, SamplingOptions(seed=3, batch_size=size)).generate(
                range(4)
            )
            for crystal in found
        ]
        for size in (1, 5, 17)
    ]
    assert written[0] == written[1] == written[2]


def test_the_first_crystal_of_a_long_list_waits_for_few_choices(model, monkeypatch):
    chosen: list[int] = []
    choices_of_many = generation_assignment.choices_of_many

    def count(model, requests, settings):
        chosen.append(len(requests))
        return choices_of_many(model, requests, settings)

    monkeypatch.setattr(generation_assignment, "choices_of_many", count)
    monkeypatch.setattr(generation_generator, "CHOSEN_TOGETHER", 2)
    requests = [Request(formula=f"Na{i}Cl", z="auto", n=1) for i in range(1, 31)]
    settings = SamplingOptions(batch_size=2, max_new_tokens=3, device="cpu")
    crystals = Generator(model, requests, settings).generate(range(30))
    assert chosen == [2]
    streamed = [next(crystals)]
    assert sum(chosen) < 20
    streamed += list(crystals)
    assert chosen == [2] * 15
    monkeypatch.setattr(generation_generator, "CHOSEN_TOGETHER", 100)
    together = list(Generator(model, requests, settings).generate(range(30)))
    assert chosen[15:] == [30]
    assert [crystal.ids for (crystal,) in together] == [crystal.ids for (crystal,) in streamed]


def test_a_model_that_reads_relatives_writes_other_crystals_with_them():
    alone = random_models.random_model("orbits", "llama")
    config = alone.config.model_copy(update={"n_relatives": 1, "context": 96})
    reads = replace(alone, config=config)
    settings = SamplingOptions(device="cpu", seed=2)
    requests = [Request(formula="GeO2", z=2, n=4), Request(formula="Na7Cl", z=1, n=2)]
    read, unread = (
        list(Generator(model, requests, settings, library=library()).generate([0, 1]))
        for model in (reads, alone)
    )
    (plain, _) = Generator(reads, requests, settings).generate([0, 1])
    assert [crystal.ids for crystal in plain] == [crystal.ids for crystal in unread[0]]
    assert [crystal.ids for crystal in read[0]] != [crystal.ids for crystal in plain]
    prompt = tuple(reads.language.prompt((("Ge", 2), ("O", 4))))
    assert all(tuple(crystal.ids[: len(prompt)]) == prompt for crystal in read[0])
    # Na7Cl has no relative there.
    assert [crystal.ids for crystal in read[1]] == [crystal.ids for crystal in unread[1]]
