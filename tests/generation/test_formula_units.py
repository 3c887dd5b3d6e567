"""Probabilities of Z: alone or together, within a group, and which Z are left out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from crystallm.crystallography import space_groups
from crystallm.generation import formula_units, interpretation
from crystallm.models.load import load_model
from crystallm.sampling.sample import next_token_log_probs
from random_models import babbler


def candidates(model, name, group=None):
    """The cells of a formula that the context holds, with prompts, and the number of their group."""
    symbol = None if group is None else space_groups.get(group)
    cells = [
        (cell, model.language.prompt(cell.composition, group))
        for cell in interpretation.candidate_cells(name, symbol, fitting=True)
    ]
    return [(cell, prompt) for cell, prompt in cells if len(prompt) < model.config.context], group


@pytest.mark.parametrize("language", ["orbits", "cif"])
def test_formulas_have_the_probabilities_together_that_they_have_alone(language, monkeypatch):
    model = babbler(language)
    names = ["TiO2", "NaCl", "Si", "Mg2SiO4", "Na501Cl", "TiO2"]
    requests = [candidates(model, name) for name in names]
    requests.append(candidates(model, "TiO2", 136))
    monkeypatch.setattr(formula_units, "_BATCH", 4)
    together = formula_units.likely(model, requests)
    for request, (cells, log_probs) in zip(requests, together, strict=True):
        ((alone, expected),) = formula_units.likely(model, [request])
        assert [cell.z for cell, _ in cells] == [cell.z for cell, _ in alone]
        assert log_probs == pytest.approx(expected, abs=1e-4)
        assert np.exp(log_probs).sum() == pytest.approx(1)


def test_a_network_that_knows_wurtzite_expects_two_units_of_it(parrot):
    model = load_model(parrot, device="cpu")
    ((cells, log_probs),) = formula_units.likely(model, [candidates(model, "ZnS")])
    assert cells[int(np.argmax(log_probs))][0].z == 2
    assert math.exp(log_probs.max()) > 0.9


@pytest.mark.parametrize("language", ["orbits", "cif"])
def test_within_a_group_the_probability_is_that_of_the_prompt_with_the_group(language, monkeypatch):
    monkeypatch.setattr(formula_units, "_MIN_LOG_SHARE", -math.inf)  # no Z is left out
    model = babbler(language, context=400)
    cells, number = candidates(model, "TiO2", 136)
    ((tried, log_probs),) = formula_units.likely(model, [(cells, number)])
    assert tried == cells
    totals = []
    for rows, (_, prompt) in zip(
        next_token_log_probs(model.network, [prompt for _, prompt in cells]), cells, strict=True
    ):
        totals.append(sum(float(rows[i - 1, prompt[i]]) for i in range(1, len(prompt))))
    assert log_probs == pytest.approx(np.array(totals) - np.logaddexp.reduce(totals), abs=1e-3)


def test_no_z_is_tried_that_is_much_less_likely_than_another(monkeypatch):
    model = babbler("orbits")
    request = candidates(model, "NaCl")
    ((few, log_few),) = formula_units.likely(model, [request])
    assert (log_few >= log_few.max() + math.log(formula_units.UNLIKELY)).all()
    monkeypatch.setattr(formula_units, "_MIN_LOG_SHARE", -math.inf)
    ((every, log_every),) = formula_units.likely(model, [request])
    assert len(few) < len(every) == len(request[0])
    # The ratios of those that are tried do not depend on the others.
    of_all = dict(zip([cell.z for cell, _ in every], log_every.tolist(), strict=True))
    kept = np.array([of_all[cell.z] for cell, _ in few])
    assert log_few - log_few[0] == pytest.approx(kept - kept[0], abs=1e-4)
    # And all that are left out, but for those with an unlikely first count, have little probability.
    assert max(set(of_all.values()) - set(kept.tolist())) < kept.max()


def test_a_formula_with_one_cell_needs_no_probabilities(monkeypatch):
    model = babbler("orbits")
    monkeypatch.setattr(formula_units, "_likely_cells", lambda *_: pytest.fail("computed"))
    cells, number = candidates(model, "Na501Cl")
    ((tried, log_probs),) = formula_units.likely(model, [(cells, number)])
    assert tried == cells
    assert log_probs.tolist() == [0]


def test_where_the_context_holds_no_cell_one_is_kept_to_say_why():
    model = babbler("orbits", context=20)
    ((tried, log_probs),) = formula_units.likely(model, [candidates(model, "Mg2SiO4")])
    assert len(tried) == 1
    assert log_probs.tolist() == [0]
