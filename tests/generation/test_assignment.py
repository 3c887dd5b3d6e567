"""Which choice each sample takes: what is shared, and what it does not depend on."""

from __future__ import annotations

from collections import Counter

import pytest

from crystallm.errors import InputError
from crystallm.generation import assignment, choices
from crystallm.generation.assignment import ChoiceAssignment, only_choice
from crystallm.generation.interpretation import interpret
from crystallm.generation.request import Request, SamplingOptions
from random_models import babbler


@pytest.fixture(scope="module")
def model():
    return babbler("orbits")


@pytest.fixture
def computed(monkeypatch):
    """The requests of each call that computes probabilities."""
    calls = []

    def counted(model, requests, settings):
        calls.append(len(requests))
        return choices.choices_of_many(model, requests, settings)

    monkeypatch.setattr(assignment, "choices_of_many", counted)
    return calls


def assigned_by(model, *requests, seed=0, first=None):
    """The choices of requests, whose first samples are 10 apart."""
    plans = [interpret(request) for request in requests]
    starts = first or [10 * i for i in range(len(plans))]
    return ChoiceAssignment(model, plans, SamplingOptions(seed=seed, top_k=None), starts)


TITANIA = Request(formula="TiO2", z="auto", n=5)
SALT = Request(formula="NaCl", z=4, space_group="auto")


def test_what_leaves_nothing_open_has_one_choice_without_the_network(model, computed):
    found = assigned_by(model, Request(formula="TiO2", z=2, space_group=136), Request(formula="NaCl", z=4))
    first, second, third = (choice for choice, _ in found.assign([(0, 0), (0, 1), (1, 0)]))
    assert first == second
    assert model.language.text(first.prompt).endswith("Ti 2 O 4 (P4_2/mnm)")
    assert (first.space_group, third.space_group) == (136, None)
    assert first.n_requested == len(first.prompt)
    assert (first.weight, first.z_probability, first.space_group_probability) == (1, None, None)
    assert computed == []


def test_equal_requests_share_probabilities_and_those_needed_together_are_computed_together(model, computed):
    more = TITANIA.model_copy(update={"n": 9})
    found = assigned_by(model, TITANIA, SALT, more, Request(formula="MgO", z="auto"))
    assert computed == []  # not before they are needed
    found.assign([(0, 0), (1, 0), (2, 0)])
    assert computed == [2]
    assert found.choices(0) == found.choices(2)
    found.assign([(0, 1), (1, 1)])
    assert computed == [2]
    found.choices(3)
    assert computed == [2, 1]


def test_a_sample_does_not_depend_on_which_others_are_assigned(model):
    samples = [(index, number) for index in (0, 1) for number in range(40)]
    together = assigned_by(model, TITANIA, SALT).assign(samples)
    later = assigned_by(model, TITANIA, SALT)
    assert later.assign(samples[60:]) == together[60:]
    assert [later.assign([one])[0] for one in samples[:20]] == together[:20]


def test_samples_cover_the_choices_nearly_in_proportion(model):
    found = assigned_by(model, SALT)
    options, note = found.choices(0)
    assert len(options) > 3
    assert "space group = auto" in note
    counts = Counter(choice.space_group for choice, _ in found.assign([(0, i) for i in range(200)]))
    for choice in options:
        assert abs(counts[choice.space_group] - 200 * choice.weight) < 3


def test_requests_that_are_equal_take_other_choices_in_other_places_and_with_other_seeds(model):
    samples = [(0, i) for i in range(10)]

    def groups(**more):
        return [choice.space_group for choice, _ in assigned_by(model, SALT, **more).assign(samples)]

    assert groups() == groups()
    assert groups() != groups(seed=1)
    assert groups() != groups(first=[500])


def test_a_requested_system_takes_compositions_that_the_network_draws(model, computed):
    request = Request(elements="Na-Cl", n=4)
    small = ChoiceAssignment(model, [interpret(request, max_atoms=20)], SamplingOptions(), [0])
    found = [choice for choice, _ in small.assign([(0, i) for i in range(4)])]
    for choice in found:
        assert set(model.language.text(choice.prompt).split()) >= {"Na", "Cl"}
    options, _ = small.choices(0)
    assert set(found) <= set(options)
    assert computed == []


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(prompt="once upon a time"), "the prompt is not in the language 'orbits'"),
        (Request(prompt="<crystal> " + "Na 1 " * 150), "holds 200: shorten it"),
    ],
)
def test_a_prompt_that_the_model_cannot_continue_is_one_line(model, request_, message):
    with pytest.raises(InputError, match=message) as caught:
        only_choice(model, interpret(request_))
    assert "\n" not in str(caught.value)


def test_a_prompt_is_taken_as_it_is(model):
    choice = only_choice(model, interpret(Request(prompt="<crystal> Na 1 Cl 1")))
    assert model.language.text(choice.prompt) == "<crystal> Na 1 Cl 1"
    assert choice.cell is None


def test_the_first_samples_of_a_list_are_urgent_and_those_of_one_request_are_not():
    listed = [(7, j) for j in range(3)] + [(8, 0), (9, 0)]
    assert [assignment.count_urgent(listed, n) for n in (1, 4)] == [3, 4]
    assert assignment.count_urgent(listed[:3], 1) == assignment.count_urgent([], 1) == 0
    assert list(assignment.portions(listed, 2)) == [listed[:4], listed[4:]]
