"""Crystals of a chemical system, and crystals in a space group, without a formula."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

import crystallm
import random_models
from crystallm.cif.writer import formula_unit
from crystallm.crystallography import elements, space_groups
from crystallm.crystals.selection import SelectionOptions
from crystallm.errors import CrystallmError, InputError
from crystallm.generation import compositions
from crystallm.generation.generator import Generator
from crystallm.generation.interpretation import interpret
from crystallm.generation.request import Request, SamplingOptions
from crystallm.grammar.composition import CompositionConstraint
from crystallm.grammar.factory import make_grammar
from crystallm.models.load import load_model
from crystallm.models.model import Model

SMALL = 40  # atoms of a cell, at most


@pytest.fixture(scope="module")
def default() -> Model:
    return load_model("default", device="cpu")


@pytest.fixture(scope="module")
def parrot_model(parrot) -> Model:
    return load_model(parrot, device="cpu")


def babbler(language: str, context: int = 1024, seed: int = 3) -> Model:
    return random_models.babbler(language, context, seed, scale=8)


def written(model: Model, n: int, seed: int, **asked) -> list[crystallm.Crystal]:
    """Crystals in small cells, so that what knows nothing writes some that are soon read."""
    requests = [Request(n=n, **asked)]
    generator = Generator(model, requests, SamplingOptions(seed=seed, top_k=None), max_atoms=SMALL)
    return next(generator.generate([0]))


def composition_of(crystal: crystallm.Crystal) -> dict[str, int]:
    """What the orbits of a crystal add up to, whatever its text says of itself."""
    counts = Counter(site.specie.symbol for site in crystal.structure)
    return {symbol: counts[symbol] for symbol in elements.electronegativity_order(counts)}


# -- what is written has what was asked for


@pytest.mark.parametrize("language", ["orbits", "cif"])
@pytest.mark.parametrize(
    ("system", "group"),
    [("Na-Cl", None), ("Ba-Ti-O", None), ("Na-Cl", "225"), ("O-Ti", "136"), (None, "221")],
)
def test_a_network_that_knows_nothing_writes_what_was_asked_for(language, system, group):
    model = babbler(language)
    crystals = written(model, 3, 1, elements=system, space_group=group)
    assert all(crystal.ended for crystal in crystals)
    for crystal in crystals:
        found = composition_of(crystal)
        assert system is None or set(found) == set(system.split("-"))
        assert sum(found.values()) <= SMALL
        told, number = model.language.read_prompt(crystal.ids)
        assert told == found
        assert group is None or number == int(group)


def test_the_bundled_model_writes_systems_and_groups(default):
    for system, group in (("Li-Fe-O", None), ("Ga-N", "P6_3mc"), (None, "Fm-3m")):
        crystals = crystallm.generate(elements=system, space_group=group, n=4, model=default, seed=2)
        for crystal in crystals:
            found = composition_of(crystal)
            assert system is None or set(found) == set(system.split("-"))
            assert group is None or crystal.space_group == group
            assert crystal.validity.formula
            assert crystal.validity.multiplicity


def test_of_a_subset_the_network_leaves_out_what_it_finds_unlikely(parrot_model):
    # The parrot knows rutile and the perovskite SrTiO3, and no crystal of Zn and O.
    crystals = crystallm.generate(
        elements="Ti-O-Zn", allow_fewer_elements=True, n=8, model=parrot_model, seed=1, top_k=None
    )
    assert {tuple(composition_of(crystal)) for crystal in crystals} == {("Ti", "O")}


# -- compositions come as the network would have them


def test_the_elements_of_what_was_learned_bring_its_composition(parrot_model):
    for system, composition in (("Ti-O", {"Ti": 2, "O": 4}), ("Sr-Ti-O", {"Sr": 1, "Ti": 1, "O": 3})):
        crystals = crystallm.generate(elements=system, n=6, model=parrot_model, seed=1)
        assert Counter(str(composition_of(c)) for c in crystals).most_common(1)[0][0] == str(composition)


def test_a_group_brings_what_was_learned_in_it(parrot_model):
    for group, composition in (("P4_2/mnm", {"Ti": 2, "O": 4}), ("Fd-3m", {"C": 8})):
        crystals = crystallm.generate(space_group=group, n=6, model=parrot_model, seed=1)
        assert [composition_of(crystal) for crystal in crystals] == [composition] * 6
        assert {crystal.space_group for crystal in crystals} == {group}


def test_shares_are_the_probabilities_among_all_that_has_what_was_asked_for(monkeypatch):
    """Against the sum over all compositions, which are few in this group and so small a cell."""
    monkeypatch.setattr(compositions, "N_DRAWS", (4096, 1))
    model, wanted = babbler("orbits"), CompositionConstraint(("Na", "Cl"), group=225, max_atoms=SMALL)
    able = [(n, m) for n in wanted.counts({}, "Na") for m in wanted.counts({"Na": n}, "Cl")]
    assert 4 < len(able) < 40
    texts = [model.language.prompt((("Na", n), ("Cl", m)), 225) for n, m in able]
    with torch.inference_mode():
        log_p = [torch.log_softmax(model.network(torch.tensor([text]))[0].float(), dim=-1) for text in texts]
    exact = np.array(
        [
            sum(float(rows[i, token]) for i, token in enumerate(text[1:]))
            for text, rows in zip(texts, log_p, strict=True)
        ]
    )
    made = compositions.choices(model, wanted, SamplingOptions(top_k=None), first=0, block=0, note="")
    share = {tuple(n for _, n in choice.cell.composition): choice.weight for choice in made}
    likelihood = {tuple(n for _, n in choice.cell.composition): choice.log_likelihood for choice in made}
    expected = np.exp(exact - np.logaddexp.reduce(exact))
    for counts, probability, log in zip(able, expected.tolist(), exact.tolist(), strict=True):
        # Four deviations of a share of some 1,000 draws, as weights differ.
        assert share.get(counts, 0.0) == pytest.approx(probability, abs=4 * math.sqrt(probability / 1000))
        if counts in likelihood:
            assert likelihood[counts] == pytest.approx(log, abs=1e-3)


WANTED = {
    "system": CompositionConstraint(("Na", "Cl"), max_atoms=5),
    "some of a system": CompositionConstraint(("Na", "Zn", "O"), every=False, max_atoms=4),
    "a group": CompositionConstraint(group=225, max_atoms=7),
    "some of a system in a group": CompositionConstraint(
        ("Na", "Zn", "O"), every=False, group=221, max_atoms=4
    ),
}


def all_compositions(wanted: CompositionConstraint, found=()) -> list[tuple[tuple[str, int], ...]]:
    """All that a constraint leaves, by rising electronegativity."""
    ended = [found] if wanted.may_end(dict(found)) else []
    for symbol in wanted.following(dict(found)):
        for count in wanted.counts(dict(found), symbol):
            ended += all_compositions(wanted, (*found, (symbol, count)))
    return ended


def log_of_drawing(model: Model, wanted: CompositionConstraint, composition, rows: torch.Tensor) -> float:
    """Log-probability that drawing under the rules, token by token, brings a composition."""
    rules = make_grammar(model.language.name, wanted=wanted)
    text = model.language.prompt(composition)
    log = 0.0
    for place in range(len(model.language.prompt()), len(text)):
        able = list(rules.start(text[:place]).allowed())
        log += float(rows[place - 1, text[place]] - rows[place - 1, able].logsumexp(0))
    if not model.language.ends_composition(text[-1]):
        able = list(rules.start(text).allowed())
        ends = [token for token in able if model.language.ends_composition(token)]
        log += float(rows[len(text) - 1, ends].logsumexp(0) - rows[len(text) - 1, able].logsumexp(0))
    return log


@pytest.mark.parametrize("language", ["orbits", "cif"])
@pytest.mark.parametrize("wanted", WANTED.values(), ids=WANTED)
def test_a_weight_is_what_is_asked_for_over_what_is_drawn(language, wanted):
    """Of each composition: p(composition, group) over the probability of drawing it, exactly."""
    model = babbler(language)
    found = [c for c in all_compositions(wanted) if language == "orbits" or formula_unit(dict(c))[1] >= 1]
    assert 4 <= len(found) < 200
    for composition in found:
        text = model.language.prompt(composition, wanted.group)
        with torch.inference_mode():
            rows = torch.log_softmax(model.network(torch.tensor([text]))[0].float(), dim=-1)
        plain = len(model.language.prompt(composition))
        asked = sum(float(rows[i - 1, text[i]]) for i in range(len(model.language.prompt()), plain))
        ends = make_grammar(language, wanted=wanted).start(text[:plain]).allowed()
        groups = [i for i in ends if model.language.is_group_token(i)]
        if wanted.group is not None:
            place = next(i for i, token in enumerate(text) if model.language.is_group_token(token))
            asked += float(rows[place - 1, text[place]])
        elif groups:
            asked += float(rows[plain - 1, groups].logsumexp(0))
        weight, _ = compositions.log_weight(model, wanted, composition, rows, 1.0)
        assert math.exp(log_of_drawing(model, wanted, composition, rows) + weight - asked) == pytest.approx(
            1, abs=1e-4
        )


@pytest.mark.parametrize("language", ["orbits", "cif"])
def test_a_crystal_tells_the_likelihood_of_its_composition_too(language):
    model = babbler(language)
    crystals = written(model, 2, 1, elements="Na-Cl", space_group="225")
    for crystal in crystals:
        ids = torch.tensor([crystal.ids])
        with torch.inference_mode():
            rows = torch.log_softmax(model.network(ids)[0].float(), dim=-1)
        first = crystal.n_prompt
        assert model.language.text(crystal.ids[:first]) in ("<crystal>", "data_")
        exact = sum(float(rows[i - 1, crystal.ids[i]]) for i in range(first, len(crystal.ids)))
        assert crystal.log_likelihood == pytest.approx(exact, abs=0.02)


# -- the same crystals however they are written


def test_a_sample_depends_on_its_place_alone(parrot_model, monkeypatch):
    monkeypatch.setattr(compositions, "BLOCK_SIZES", (2, 3))
    settings = SamplingOptions(seed=4, temperature=1.5)
    requests = [Request(space_group="225", n=2), Request(elements="Ti-O", n=8), Request(formula="C8", n=1)]
    once = list(Generator(parrot_model, requests, settings).generate([0, 1, 2]))
    few = Generator(parrot_model, requests, settings.model_copy(update={"batch_size": 1})).generate([1])
    assert [c.ids for c in next(few)] == [c.ids for c in once[1]]
    # A part of the request on its own, as a worker writes it.
    part = Generator(parrot_model, [Request(elements="Ti-O", n=3)], settings, first=[2], starts=[4]).generate(
        [0]
    )
    assert [c.ids for c in next(part)] == [c.ids for c in once[1][4:7]]
    shorter = [requests[0], Request(elements="Ti-O", n=2)]
    assert [c.ids for c in next(Generator(parrot_model, shorter, settings).generate([1]))] == [
        c.ids for c in once[1][:2]
    ]


def test_valid_crystals_are_sought_on_among_further_compositions(parrot_model):
    crystals = crystallm.generate(
        elements="Na-Cl", n=3, selection=SelectionOptions(only_valid=True), model=parrot_model, seed=0
    )
    assert len(crystals) == 3
    assert all(crystal.validity.valid for crystal in crystals)


def test_no_temperature_takes_the_likeliest(parrot_model):
    crystals = crystallm.generate(elements="Cl-Na", n=3, model=parrot_model, temperature=0, seed=8)
    assert {crystal.ids for crystal in crystals} == {crystals[0].ids}
    assert composition_of(crystals[0]) == {"Na": 4, "Cl": 4}


# -- what is said


def test_a_crystal_says_what_was_asked_and_what_was_chosen(parrot_model):
    (crystal,) = crystallm.generate(elements="O-Ti", space_group=136, n=1, model=parrot_model, seed=1)
    asked = "elements Ti-O, P4_2/mnm (no. 136): the network chooses the formula"
    assert crystal.source.request == f"{asked}, Ti2O4 = 2 x TiO2"
    assert interpret(Request(elements="Ti O", space_group="136")).note == asked
    some = interpret(Request(elements="Ti,O", allow_fewer_elements=True)).note
    assert some == "elements Ti-O or some of them: the network chooses the formula"


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"elements": "Li-Po-O"}, "the element Po (Z = 84) has no token: the language covers H to Pu"),
        ({"elements": "Li-Xx"}, "'Li-Xx': Xx is not an element"),
        ({"elements": "li-fe-o"}, "elements = 'li-fe-o': 'li' is not an element: did you mean Li?"),
        ({"elements": "Li2O"}, "elements = 'Li2O' has counts or brackets: write symbols alone"),
        ({"elements": "Li-Fe-*"}, "elements = 'Li-Fe-*' has counts or brackets"),
        ({"elements": " "}, "elements = '': write symbols with - between them, such as Li-Fe-O"),
        ({"elements": "-"}, "elements = '-': write symbols with - between them, such as Li-Fe-O"),
        ({"elements": "Ti-O", "formula": "TiO2"}, "elements = 'Ti-O' and the formula 'TiO2': give one or"),
        ({"elements": "Ti-O", "z": 2}, "z = 2 without a formula: say of what"),
        ({"elements": "Ti-O", "prompt": "<crystal>"}, "a prompt stands for the formula"),
        ({"elements": "Ti-O", "space_group": "auto"}, "space group 'auto' without a formula: leave it out"),
        (
            {"allow_fewer_elements": True},
            "allow_fewer_elements without elements: say of which, such as Li-Fe-O",
        ),
        ({"space_group": "Fm-3x"}, "no space group 'Fm-3x'"),
        ({"elements": "H-Li-B-C-N-O-F-Na-Mg"}, "9 elements in one crystal, known ones have up to 8"),
    ],
)
def test_what_cannot_be_asked_is_one_line(asked, says):
    with pytest.raises(InputError) as caught:
        interpret(Request(**asked))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_many_elements_may_be_named_where_some_are_left_out():
    plan = interpret(Request(elements="H-Li-B-C-N-O-F-Na-Mg", allow_fewer_elements=True))
    assert plan.wanted == CompositionConstraint(
        tuple(elements.electronegativity_order("H Li B C N O F Na Mg".split())), every=False
    )


@pytest.mark.parametrize("asked", [{"elements": "Ti-O"}, {"space_group": "225"}])
def test_without_rules_neither_is_promised(asked):
    with pytest.raises(InputError, match="without a formula takes the rules: leave constraints at full"):
        crystallm.generate(**asked, constraints="none")


def test_a_group_that_the_language_cannot_tell_is_refused_before_anything_is_written():
    generator = Generator(babbler("cif"), [Request(space_group="168")], SamplingOptions())
    with pytest.raises(InputError, match="no token for the space group P6"):
        generator.check()


def test_a_context_that_holds_no_crystal_is_said():
    model = babbler("orbits", context=12)
    with pytest.raises(CrystallmError, match=r"its context of 12 tokens holds none: request fewer elements"):
        written(model, 1, 0, elements="Ba-Ti-O")


def test_what_fills_a_group_need_not_be_likely(parrot_model):
    # The parrot has seen five groups; none of its crystals has elements in this one.
    group = space_groups.get("I4_1/amd").number
    for crystal in crystallm.generate(space_group=group, n=2, model=parrot_model, seed=0):
        assert crystal.language.read_prompt(crystal.ids)[1] == group
        assert crystal.validity.multiplicity
