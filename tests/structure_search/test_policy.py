"""Plain sampling of a search, and its random streams."""

from __future__ import annotations

from collections import Counter

import numpy as np

from crystallm.structure_search.policy import Proposal, Sampling, SearchPrompt, draw_index, random_stream


def test_indices_are_drawn_by_their_weights():
    random = np.random.default_rng(0)
    counts = Counter(draw_index([3.0, 0.0, 1.0], random) for _ in range(4000))
    assert set(counts) == {0, 2}
    assert 0.72 < counts[0] / 4000 < 0.78


def test_sampling_proposes_prompts_whatever_the_rounds_are():
    prompts = [SearchPrompt((1, 2), 0.5), SearchPrompt((1, 3), 0.5)]
    policy = Sampling(7, prompts)
    together = policy.propose(0, 40)
    policy.learn(together[:10], [[] for _ in range(10)])
    assert policy.propose(0, 15) + policy.propose(15, 25) == together
    assert {proposal.ids for proposal in together} == {(1, 2), (1, 3)}
    assert all(proposal == Proposal(prompts[proposal.root].prompt, proposal.root) for proposal in together)
    assert Sampling(8, prompts).propose(0, 40) != together


def test_each_simulation_has_a_random_stream_of_its_own():
    draws = [random_stream(seed, number).random() for seed in (0, 1) for number in range(5)]
    assert len(set(draws)) == 10
    assert random_stream(1, 4).random() == draws[-1]
