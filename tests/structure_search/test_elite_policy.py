"""Proposals near the best crystals: from which, and how they change."""

from __future__ import annotations

import pytest

from crystallm.grammar import factory
from crystallm.language import get_language
from crystallm.orbits import parameters
from crystallm.structure_search.elite_policy import MIN_FAMILY, ElitePolicy
from crystallm.structure_search.known_starts import KnownStart
from crystallm.structure_search.options import EliteOptions
from crystallm.structure_search.policy import Outcome, Proposal, SearchPrompt
from crystallm.structure_search.prefixes import PrefixExplorer

LANGUAGE = get_language("orbits")
RUTILE = "<crystal> Ti 2 O 4 (P4_2/mnm) Ti 2a O 4f V-5 .7 c-9 .3 0.30 {}' <end>"
COMPOSITION = (("Ti", 2), ("O", 4))
PROMPT = tuple(LANGUAGE.prompt(COMPOSITION))


@pytest.fixture
def policy():
    """A policy that always starts from a good crystal once it knows one."""

    def make(*known, **options):
        prefixes = PrefixExplorer(LANGUAGE, factory.make_grammar("orbits", COMPOSITION), 128)
        given = EliteOptions.build({"warm_up": 1, "explore_share": 0.0, **options})
        return ElitePolicy(given, 0, [SearchPrompt(PROMPT, 1.0)], prefixes, known)

    return make


def outcomes(n, **given):
    """Rutile with its coordinate in n values; the second is the lowest."""
    made = [Outcome(tuple(LANGUAGE.ids(RUTILE.format(i))), abs(i - 1) - 5.0, 0.0, **given) for i in range(n)]
    return [Proposal(PROMPT, 0)] * n, [[outcome] for outcome in made]


def test_the_first_simulations_sample_from_the_prompt(policy):
    elites = policy(warm_up=5)
    elites.learn(*outcomes(3))
    assert {proposal.move for proposal in elites.propose(0, 5)} == {"sample"}
    assert "sample" not in {proposal.move for proposal in elites.propose(5, 20)}


def test_known_crystals_come_before_all_others(policy):
    known = [KnownStart(tuple(LANGUAGE.ids(RUTILE.format(i))), 0) for i in range(2)]
    proposals = policy(*known, warm_up=5).propose(0, 5)
    assert [proposal.move for proposal in proposals] == ["relative", "relative", "sample", "sample", "sample"]
    assert [proposal.ids for proposal in proposals[:2]] == [start.ids for start in known]


def test_duplicates_and_crystals_without_energy_are_no_start(policy):
    elites = policy()
    elites.learn(*outcomes(2, is_duplicate=True))
    elites.learn([Proposal(PROMPT, 0)], [[Outcome(tuple(LANGUAGE.ids(RUTILE.format(0))), None, -1.0)]])
    assert {proposal.move for proposal in elites.propose(1, 20)} == {"sample"}


@pytest.mark.parametrize(("share", "move"), [(1.0, "mutate"), (0.0, "fit")])
def test_changed_crystals_are_new_and_differ_in_numbers_only(policy, share, move):
    elites = policy(resample_share=0.0, mutation_share=share)
    proposals, results = outcomes(MIN_FAMILY)
    elites.learn(proposals, results)
    changed = [proposal for proposal in elites.propose(1, 30) if proposal.move == move]
    assert len(changed) > 10
    known = {outcome.ids for (outcome,) in results}
    assert len({proposal.ids for proposal in changed} | known) == len(changed) + len(known)
    first_number = parameters.positions(LANGUAGE.ids(RUTILE.format(0)))[0]
    head = tuple(LANGUAGE.ids(RUTILE.format(0)))[:first_number]
    assert all(proposal.ids[:first_number] == head for proposal in changed)


def test_crystals_longer_than_the_context_are_resampled_within_it():
    options = EliteOptions(warm_up=1, explore_share=0.0)
    policy = ElitePolicy(
        options, 0, [SearchPrompt((1, 2), 1.0)], PrefixExplorer(get_language("cif"), None, 16)
    )
    policy.learn([Proposal((1, 2), 0)], [[Outcome((1, 2, *range(38)), -1.0, 0.0)]])
    proposals = policy.propose(1, 60)
    assert {proposal.move for proposal in proposals} == {"resample"}
    assert {len(proposal.ids) for proposal in proposals} == set(range(2, 16))
