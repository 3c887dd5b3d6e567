"""The tree of a search: which child is followed, and what a crystal is worth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from crystallm.structure_search import mcts
from crystallm.structure_search.mcts import Edge, Node, Rewards, learn, most_likely, score, select


def grown(*children):
    """A root with children (prior, visits, sum of rewards)."""
    root = Node((0,))
    root.edges = []
    for token, (prior, visits, total) in enumerate(children, 1):
        node = Node((0, token), root, prior, visits, total, edges=[])
        root.edges.append(Edge(node.ids, prior, node))
        root.visits += visits
        root.total += total
    return root


def drawing(seed=0):
    return np.random.default_rng(seed)


def test_scores_are_those_of_the_paper():
    root = grown((0.7, 3, 1.5), (0.3, 1, 0.9))
    first, second = (edge.node for edge in root.edges)
    # N = 4: 1.5/3 + 5 * 0.7 * 2 / 4 and 0.9 + 5 * 0.3 * 2 / 2
    assert score(first, "puct", 5.0) == pytest.approx(2.25)
    assert score(second, "puct", 5.0) == pytest.approx(2.4)
    assert score(first, "uct", 2.0) == pytest.approx(0.5 + 2 * math.sqrt(math.log(4) / 3))
    assert score(second, "uct", 2.0) == pytest.approx(0.9 + 2 * math.sqrt(math.log(4)))
    assert score(first, "greedy", 5.0) == 0.5


@pytest.mark.parametrize(("rule", "c", "taken"), [("puct", 5.0, 2), ("puct", 9.0, 1), ("greedy", 0.0, 2)])
def test_the_best_child_is_followed(rule, c, taken):
    # With c = 9: 0.5 + 9 * 0.7 / 2 = 3.65 against 0.9 + 9 * 0.3 = 3.6.
    root = grown((0.7, 3, 1.5), (0.3, 1, 0.9))
    assert select(root, rule, c, drawing()).ids == (0, taken)


def test_greedy_takes_any_child_at_its_rate():
    root = grown((0.5, 1, 1.0), (0.5, 1, 0.0))
    taken = []
    for seed in range(200):
        node = select(root, "greedy", 0.5, drawing(seed))
        taken.append(node.ids[-1])
        node.pending = root.pending = 0
    assert 30 < taken.count(2) < 70  # half of the random half


def test_a_child_without_a_visit_comes_first_and_by_chance():
    seen = set()
    for seed in range(30):
        root = grown((0.9, 50, 50.0))
        root.edges += [Edge((0, 8), 0.05), Edge((0, 9), 0.05)]
        seen.add(select(root, "puct", 5.0, drawing(seed)).ids)
    assert seen == {(0, 8), (0, 9)}


def test_visits_under_way_count_as_lost_and_part_the_leaves():
    root = grown((0.5, 10, 9.0), (0.5, 10, 8.5))
    leaves = [select(root, "puct", 1.0, drawing()) for _ in range(4)]
    assert {leaf.ids for leaf in leaves} == {(0, 1), (0, 2)}
    first = root.edges[0].node
    assert (first.n, root.n) == (10 + first.pending, 24)
    assert first.mean == pytest.approx((9.0 - first.pending) / (10 + first.pending))
    for leaf in leaves:
        learn(leaf, 1.0)
    assert (root.pending, root.visits, root.total) == (0, 24, 21.5)
    assert first.pending == 0


def test_rewards_fall_with_the_energy_as_the_paper_has_it():
    rewards = Rewards(k=2.0)
    assert rewards.of(-3.0) == 0.5
    assert rewards.of(-3.0) == 0.5  # all are equal
    # -3, -3, -6: mean -4, deviation sqrt(2), z = -sqrt(2)
    assert rewards.of(-6.0) == pytest.approx(1 / (1 + math.exp(-2 * math.sqrt(2))))
    assert rewards.of(0.0) < 0.5
    assert Rewards(k=-2.0, energies=[-3.0]).of(-6.0) < 0.5
    assert 0.0 <= Rewards(k=1e6, energies=[-3.0]).of(0.0) < 1e-300


def test_children_are_the_likeliest_with_priors_that_add_up():
    log_probs = np.log(np.array([0.1, 0.5, 0.15, 0.2, 0.05]))
    tokens, priors = most_likely(log_probs, None, width=2, cutoff=0.99)
    assert tokens == [1, 3]
    assert priors == pytest.approx([5 / 7, 2 / 7])
    assert most_likely(log_probs, (0, 4), width=9, cutoff=0.99)[0] == [0, 4]
    # What holds more than the cut-off comes alone.
    assert most_likely(log_probs, None, width=2, cutoff=0.7) == ([1], [1.0])


def test_the_lowest_reward():
    assert mcts.MIN_REWARD == -1.0
