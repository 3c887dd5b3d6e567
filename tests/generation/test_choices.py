from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crystallm.crystallography import formula, space_groups, wyckoff_assignment
from crystallm.errors import InputError
from crystallm.generation import choices, formula_units, interpretation
from crystallm.generation.generator import Generator
from crystallm.generation.interpretation import interpret
from crystallm.generation.request import Request, SamplingOptions
from crystallm.grammar import text_length
from crystallm.models.load import load_model
from crystallm.models.model import Model
from crystallm.orbits import vocabulary
from random_models import babbler


@pytest.fixture(scope="module")
def model(parrot) -> Model:
    return load_model(parrot, device="cpu")


# -- what cannot be is said, with what can


def refused(**asked) -> str:
    with pytest.raises(InputError) as caught:
        interpret(Request(**asked))
    return str(caught.value)


def test_what_cannot_fill_a_group_is_said_with_the_nearest_z_that_can():
    # Fluorite and its kin: Ti on 4a (and 8c), O on 8c, 24e, 32f of Fm-3m; 8 and 16 of them have no place.
    said = refused(formula="TiO2", z=3, space_group="Fm-3m")
    assert said == "3 formula units of TiO2 cannot fill Fm-3m (#225); Z = 4, 12, 16 can"
    said = refused(formula="TiO2", space_group="Fm-3m")
    assert said == "a cell of TiO2 (1 formula unit of TiO2) cannot fill Fm-3m (#225); Z = 4, 12, 16 can"
    said = refused(formula="NaCl", z=23, space_group=225)
    assert "23 formula units of NaCl" in said
    nearest = [int(z) for z in said.split("Z = ")[1].removesuffix(" can").split(", ")]
    assert all(wyckoff_assignment.can_hold(225, [z, z]) for z in nearest)
    assert not any(wyckoff_assignment.can_hold(225, [z, z]) for z in range(24, nearest[0]))


def test_where_no_z_can_other_groups_are_named():
    said = refused(formula="Na997Cl", z=1, space_group="Fd-3c")
    assert "no Z up to 2 can: choose another space group, such as " in said
    named = said.split("such as ")[1].split(", ")
    for name in named:
        group = space_groups.get(int(name.split("#")[1].rstrip(")")))
        assert group.crystal_system == "cubic"
        assert wyckoff_assignment.can_hold(group.number, [1, 997])


@given(st.integers(1, 230), st.integers(1, 12), st.sampled_from(["TiO2", "NaCl", "C", "CaTiO3", "O2"]))
def test_a_message_never_names_what_cannot(number, z, name):
    group = space_groups.get(number)
    cell = formula.cell(name, z)
    try:
        interpretation.require_compatible(cell, group, by_z=True)
    except InputError as error:
        assert not wyckoff_assignment.can_hold(number, [n for _, n in cell.composition])
        if "Z = " in str(error):
            for said in str(error).split("Z = ")[1].removesuffix(" can").split(", "):
                counts = [n for _, n in formula.cell(name, int(said)).composition]
                assert wyckoff_assignment.can_hold(number, counts)
    else:
        assert wyckoff_assignment.can_hold(number, [n for _, n in cell.composition])


def test_the_network_alone_may_be_asked_for_what_cannot_be(model):
    request = Request(formula="TiO2", z=1, space_group="Fm-3m", n=1)
    assert interpret(request, fitting=False).space_group.number == 225
    Generator(model, [request], SamplingOptions(constraints="none"))
    with pytest.raises(InputError, match="1 formula unit of TiO2 cannot fill"):
        Generator(model, [request], SamplingOptions())


# -- which Z are tried


def test_only_cells_that_fill_the_group_are_tried():
    cells = interpretation.candidate_cells("Ti2O4", space_groups.get(225), fitting=True)
    assert {cell.z for cell in cells} >= {4, 12, 16}
    assert all(cell.z % 4 == 0 for cell in cells)
    assert [cell.z for cell in interpretation.candidate_cells("TiO2", None, fitting=True)][:3] == [1, 2, 3]
    with pytest.raises(InputError, match=r"no 24 or fewer formula units of .* can fill Ia-3d"):
        interpretation.candidate_cells("NaClBrI", space_groups.get(230), fitting=True)


def test_cells_that_are_tried_are_neither_many_nor_large():
    assert (
        max(cell.n_atoms for cell in interpretation.candidate_cells("Mn", None, fitting=True)) >= 58
    )  # alpha-Mn
    large = interpretation.candidate_cells("C60H60O61", None, fitting=True)
    assert [cell.z for cell in large] == [1, 2]
    assert [cell.z for cell in interpretation.candidate_cells("Na501Cl", None, fitting=True)] == [1]
    few = interpretation.candidate_cells("TiO2", None, fitting=True, max_atoms=20)
    assert [cell.n_atoms for cell in few] == [3, 6, 9, 12, 15, 18]


# -- weights


def by_hand(model: Model, prompt: list[int]) -> tuple[float, torch.Tensor]:
    """Log-probability of a prompt behind its first token, and the log-probabilities of what comes next."""
    total = 0.0
    for end in range(1, len(prompt) + 1):
        with torch.inference_mode():
            row = torch.log_softmax(model.network(torch.tensor([prompt[:end]]))[0, -1].float(), dim=-1)
        if end < len(prompt):
            total += float(row[prompt[end]])
    return total, row


def choose(model, cells, settings, *, any_z, any_group):
    question = choices.OpenChoices(tuple(cells), None, any_z, any_group)
    (chosen,) = choices.choices_of_many(model, [question], settings)
    return chosen


def test_z_is_weighted_by_the_probability_that_the_network_writes_this_composition_and_no_more():
    model = babbler("orbits")
    cells = interpretation.candidate_cells("TiO2", None, fitting=True)[:12]
    found, note = choose(model, cells, SamplingOptions(), any_z=True, any_group=False)
    firsts, totals = [], []
    for cell in cells:
        prompt = model.language.prompt(cell.composition)
        firsts.append(float(by_hand(model, prompt[:2])[1][prompt[2]]))
        total, after = by_hand(model, prompt)
        first = vocabulary.families().group
        groups = [
            first + number - 1
            for number in wyckoff_assignment.groups_for(tuple(sorted([cell.z, 2 * cell.z])))
        ]
        totals.append(total + float(torch.logsumexp(after[groups], dim=0)))
    least = math.log(formula_units.UNLIKELY)
    hopeful = [i for i, first in enumerate(firsts) if first > max(firsts) + least]
    tried = [i for i in hopeful if totals[i] > max(totals[k] for k in hopeful) + least]
    expected = np.array([totals[i] for i in tried])
    share = np.exp(expected - np.logaddexp.reduce(expected))
    assert 1 < len(tried) < len(cells)
    assert [choice.cell.z for choice in found] == [i + 1 for i in tried]
    assert [choice.weight for choice in found] == pytest.approx(share.tolist(), rel=1e-4)
    assert [choice.log_likelihood for choice in found] == pytest.approx(np.log(share).tolist(), rel=1e-3)
    assert note.startswith("TiO2, Z = ")


def test_a_cell_that_the_context_cannot_hold_is_not_tried():
    model = babbler("orbits", context=80)
    cells = interpretation.candidate_cells("Mg2SiO4", None, fitting=True)
    found, _ = choose(model, cells, SamplingOptions(), any_z=True, any_group=False)
    assert found
    counts = [tuple(sorted(n for _, n in choice.cell.composition)) for choice in found]
    assert all(text_length.groups_within(some, 80) for some in counts)
    for z in range(1, 25):
        some = tuple(sorted([2 * z, z, 4 * z]))
        assert text_length.fits_context(some, 80) == bool(text_length.groups_within(some, 80))


@pytest.mark.parametrize("language", ["orbits", "cif"])
def test_groups_have_the_weight_that_plain_sampling_gives_them(language):
    model = babbler(language)
    cell = formula.cell("NaCl", 4)
    settings = SamplingOptions(temperature=0.7, top_k=6, top_p=0.9)
    found, _ = choose(model, [cell], settings, any_z=False, any_group=True)
    assert sum(choice.weight for choice in found) == pytest.approx(1)
    assert 1 < len(found) <= 6
    numbers = wyckoff_assignment.groups_for((4, 4))
    texts = {n: model.language.prompt(cell.composition, n) for n in numbers if n not in (93, 168, 207)}
    place = next(i for i, (a, b) in enumerate(zip(texts[1], texts[2], strict=True)) if a != b)
    _, after = by_hand(model, texts[1][:place])
    logits = {n: float(after[text[place]]) for n, text in texts.items()}
    likely = sorted(logits, key=lambda n: -logits[n])[:6]
    assert {choice.space_group for choice in found} <= set(likely)
    one, other = found[0], found[-1]
    ratio = math.exp((logits[one.space_group] - logits[other.space_group]) / 0.7)
    assert one.weight / other.weight == pytest.approx(ratio, rel=1e-3)


def test_at_temperature_zero_the_likeliest_has_all(model):
    cells = interpretation.candidate_cells("ZnS", None, fitting=True)
    (only,), _ = choose(model, cells, SamplingOptions(temperature=0), any_z=True, any_group=True)
    assert (only.cell.z, only.space_group, only.weight) == (2, 186, 1.0)


def test_the_likelihood_of_a_chosen_group_is_that_of_a_sampled_one(model):
    # The same crystal, its group sampled or chosen: one number.
    def write(**more):
        request = Request(formula="ZnS", z=2, n=1, **more)
        return next(Generator(model, [request], SamplingOptions(top_k=1)).generate([0]))[0]

    plain, chosen = write(), write(space_group="auto")
    assert plain.ids == chosen.ids
    assert plain.n_prompt == chosen.n_prompt
    assert chosen.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-4)


# -- spreading


def test_samples_are_spread_in_proportion_whatever_their_number():
    weights = [0.5, 0.3, 0.15, 0.05]
    for seed in range(20):
        assigned = choices.assign_by_weight(weights, seed, 0, range(200))
        assert choices.assign_by_weight(weights, seed, 0, range(20)) == assigned[:20]
        taken = [i for i, _ in assigned]
        for n in (10, 20, 50, 200):
            counts = Counter(taken[:n])
            assert all(abs(counts[i] - n * w) < 3 for i, w in enumerate(weights)), (seed, n)


def test_each_sample_is_a_fair_draw():
    first = Counter(choices.assign_by_weight([0.2, 0.8], seed, 0, [0])[0][0] for seed in range(2000))
    assert 340 < first[0] < 460  # 400 expected, standard deviation 18


def test_points_are_spread_within_each_choice():
    assigned = choices.assign_by_weight([0.5, 0.3, 0.2], 3, 0, range(200))
    for choice, share in enumerate([0.5, 0.3, 0.2]):
        points = sorted(point for i, point in assigned if i == choice)
        evenly = (np.arange(len(points)) + 0.5) / len(points)
        assert np.abs(np.array(points) - evenly).max() < 3 / (200 * share)


def test_crystals_are_spread_over_z_and_say_so(model):
    request = Request(formula="ZnS", z="auto", space_group="auto", n=6)
    generator = Generator(
        model, [request, request.model_copy(update={"n": 3})], SamplingOptions(seed=2, top_k=None)
    )
    first, second = generator.generate([0, 1])
    for crystal in [*first, *second]:
        counts = crystal.structure.composition.get_el_amt_dict()
        assert counts["Zn"] == counts["S"]
        assert 0 < crystal.source.z_probability <= 1
        assert "of z = auto" in crystal.source.request
    assert [crystal.row()["z"] for crystal in first].count(2) >= 4  # it has read of no other
    assert "Z = 2 (" in generator.note(0)
    (again,) = generator.generate([1])
    assert [crystal.ids for crystal in again] == [crystal.ids for crystal in second]


def test_few_samples_for_many_values_of_z_are_said(model):
    def of(**probabilities):
        return [
            choices.Choice((), 0, formula.cell("TiO2", int(z[1:])), None, "", p, z_probability=p)
            for z, p in probabilities.items()
        ]

    many = of(z1=0.3, z2=0.25, z4=0.2, z3=0.15, z8=0.09, z16=0.01)
    assert choices.spread(many, 19) == (
        "19 samples are few for 5 likely values of Z: give one of them, or more samples"
    )
    assert choices.spread(many, 1).startswith("1 sample is few for 5 likely")
    assert choices.spread(many, 20) == ""
    assert choices.spread(of(z2=0.99, z4=0.006, z1=0.004), 1) == ""
    assert choices.spread([], 1) == ""
    alone = Generator(model, [Request(formula="ZnS", z=2, n=1)], SamplingOptions()).choices(0)
    assert choices.spread(alone, 1) == ""


def test_prompts_that_do_not_fit_are_left_out_and_if_none_fits_it_is_said(model):
    with pytest.raises(InputError, match="no token for the space group P6"):
        Generator(
            babbler("cif"), [Request(formula="TiO2", z="auto", space_group="P6")], SamplingOptions()
        ).note(0)
    with pytest.raises(InputError, match="fills the context of the model 'babbler'"):
        Generator(babbler("cif", context=4), [Request(formula="TiO2", z="auto")], SamplingOptions()).note(0)
    few = Generator(babbler("orbits", context=6), [Request(formula="TiO2", z="auto")], SamplingOptions())
    with pytest.raises(InputError, match="a cell of TiO2 takes 17 tokens"):
        few.check()  # so that a long list is refused before it is written
