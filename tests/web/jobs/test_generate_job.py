"""Generation as a job: the crystals of `generate`, their tokens, energies and ranks."""

from __future__ import annotations

import pytest

import crystallm
from conditioned_networks import conditioned_model
from crystallm.generation.request import Request, SamplingOptions
from crystallm.models.load import load_model
from crystallm.references.options import ReferenceOptions
from crystallm.web.jobs.generate_job import plan
from crystallm.web.jobs.services import JobServices
from crystallm.web.metrics import Metrics
from crystallm.web.options import ServerLimits
from crystallm.web.schemas import GenerateRequest
from web_requests import RUTILE


def test_a_job_gives_the_crystals_of_generate(rutile, parrot):
    crystals = crystallm.generate("TiO2", z=2, n=3, seed=5, model=parrot)
    assert rutile["state"] == "done"
    assert [one["number"] for one in rutile["crystals"]] == [0, 1, 2]
    for crystal, summary in zip(crystals, rutile["crystals"], strict=True):
        assert summary["cif"] == crystal.cif
        assert summary["text"] == crystal.text
        assert summary["valid"] == crystal.validity.valid
        assert summary["reasons"] == list(crystal.validity.reasons)
        assert summary["log_likelihood"] == pytest.approx(crystal.log_likelihood, abs=1e-4)
        assert summary["structure"]["species"] == [site.specie.symbol for site in crystal.structure]


@pytest.mark.parametrize(
    "body",
    [
        {"formula": "NaCl", "z": "auto", "space_group": "auto", "n": 5, "seed": 3, "temperature": 1.5},
        {"formula": "SrTiO3", "n": 4, "seed": 2**53 - 1, "top_k": None, "temperature": 0.7},
        {"formula": "ZnS", "z": 2, "space_group": 186, "n": 2, "seed": 0, "top_p": 0.9},
        {"formula": "C8", "space_group": "Fd-3m", "n": 2, "seed": 9, "temperature": 0},
        {"elements": "O-Ti", "n": 2, "seed": 4},
        {"space_group": 225, "n": 2, "seed": 3},
    ],
    ids=["auto", "z left out", "group", "as written, temperature 0", "elements", "group alone"],
)
def test_so_does_one_of_several_jobs_that_run_together(body, served, parrot):
    others = [served.post({**RUTILE, "seed": seed, "n": 6}).json["id"] for seed in range(3)]
    state = served.done({"kind": "generate", **body})
    options = {name: value for name, value in body.items() if name in Request.model_fields}
    sampling = {name: value for name, value in body.items() if name in SamplingOptions.model_fields}
    crystals = crystallm.generate(model=parrot, settings=SamplingOptions(**sampling), **options)
    assert [one.get("cif") for one in state["crystals"]] == [_cif(crystal) for crystal in crystals]
    for other in others:
        assert served.over(other)["state"] == "done"


@pytest.mark.parametrize("source", ["both", "references"])
def test_known_crystals_give_those_of_generate(source, served, parrot):
    state = served.done(
        {"kind": "generate", "formula": "NaCl", "z": 4, "n": 4, "seed": 1, "crystals_from": source}
    )
    known = ReferenceOptions(crystals_from=source)
    crystals = crystallm.generate("NaCl", z=4, n=4, seed=1, model=parrot, known=known)
    summaries = state["crystals"]
    assert [one.get("cif") for one in summaries] == [_cif(crystal) for crystal in crystals]
    for crystal, summary in zip(crystals, summaries, strict=True):
        relative = crystal.source.relative
        assert summary.get("relative") == (None if relative is None else relative._asdict())
        assert ("tokens" in summary) == (relative is None)
    assert summaries[0]["relative"]["id"]
    assert 0 < summaries[0]["probability"] <= 1
    assert summaries[0]["rank"]


def test_known_crystals_respect_the_largest_cell_of_the_server(parrot):
    services = JobServices({"parrot": load_model(parrot)}, [], ServerLimits(max_cell_atoms=7), Metrics())
    request = GenerateRequest(kind="generate", formula="NaCl", n=6, crystals_from="references")
    made = plan(services, request).made
    assert made
    assert all(len(crystal.structure) <= 7 for crystal in made)


def test_sequences_have_the_conditions_of_the_request():
    model = conditioned_model()
    services = JobServices({"conditioned": model}, [], ServerLimits(), Metrics())
    request = GenerateRequest(
        kind="generate", conditions=["density=4:6"], guidance=3, n=4, crystals_from="network"
    )
    sequences = [sequence for sequence, _ in plan(services, request).drafts]
    densities = [sequence.conditions[0] for sequence in sequences]
    assert len(set(densities)) == 4
    assert all(4 <= density <= 6 for density in densities)
    assert {sequence.options.guidance for sequence in sequences} == {3}


def _cif(crystal):
    try:
        return crystal.cif
    except crystallm.errors.TextError:
        return None


def test_a_drawn_seed_is_reported_and_gives_the_same_again(served):
    body = {"kind": "generate", "formula": "NaCl", "z": 4, "n": 2}
    first = served.done(body)
    again = served.done({**body, "seed": first["request"]["seed"]})
    assert [one["cif"] for one in again["crystals"]] == [one["cif"] for one in first["crystals"]]
    assert first["request"]["model"]


def test_tokens_have_their_origin(rutile):
    for summary in rutile["crystals"]:
        kinds = [kind for _, kind, _ in summary["tokens"]]
        assert len(kinds) == summary["n_tokens"]
        assert kinds[:5] == [0] * 5  # <crystal> Ti 2 O 4
        assert {2, 3} <= set(kinds[5:])
        sampled = [chance for _, kind, chance in summary["tokens"] if kind == 3]
        assert all(0 <= chance <= 1 for chance in sampled)


def test_a_summary_has_orbits_with_wyckoff_positions(served):
    state = served.done({**RUTILE, "space_group": 136, "n": 1})
    (summary,) = state["crystals"]
    assert [summary["orbits"][0][name] for name in ("element", "wyckoff")] == ["Ti", "2a"]
    assert sum(orbit["multiplicity"] for orbit in summary["orbits"]) == summary["n_atoms"] == 6
    assert summary["free_cell"] == ["a", "c"]
    assert len(summary["view"]["atoms"]) >= 6


def test_crystals_are_ranked_by_energy_and_relaxation_lowers_it(relaxed):
    assert relaxed["state"] == "done"
    by_rank = sorted(relaxed["crystals"], key=lambda one: one["rank"])
    assert by_rank[0]["energy"] <= by_rank[1]["energy"]
    for one in by_rank:
        assert one["relaxed"]["energy"] == one["energy"] < one["relaxed"]["energy_before"]
    curve = [point["energy"] for point in relaxed["curve"]]
    assert curve == sorted(curve, reverse=True)
    assert curve[-1] == by_rank[0]["energy"]
