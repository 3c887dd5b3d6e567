"""The tree search of the paper, with a network of known probabilities."""

from __future__ import annotations

import pytest
import torch

from crystallm.grammar import factory
from crystallm.language import get_language
from crystallm.orbits import vocabulary
from crystallm.structure_search.options import TreeOptions
from crystallm.structure_search.policy import Outcome, SearchPrompt
from crystallm.structure_search.prefixes import PrefixExplorer
from crystallm.structure_search.tree_policy import TreePolicy

LANGUAGE = get_language("orbits")
COMPOSITION = (("Ti", 2), ("O", 4))
GROUP = vocabulary.families().group - 1


class Network:
    """Gives the groups 136 and 225 logits of 3 and 2, all other tokens 0."""

    def next_log_probs(self, prefixes):
        logits = torch.zeros(len(prefixes), len(LANGUAGE.vocabulary()))
        logits[:, GROUP + 136], logits[:, GROUP + 225] = 3.0, 2.0
        return torch.log_softmax(logits, dim=-1)


def tree(prompts=(COMPOSITION,), **options):
    prefixes = PrefixExplorer(LANGUAGE, factory.make_grammar("orbits", COMPOSITION), 128)
    roots = [SearchPrompt(tuple(LANGUAGE.prompt(*prompt)), 1.0) for prompt in prompts]
    given = TreeOptions.build({"width": 3, "prior_cutoff": 1.0, **options})
    return TreePolicy(given, 0, roots, prefixes, Network())


def test_branches_are_the_most_likely_allowed_tokens_with_the_forced_ones_after_them():
    root = tree([(COMPOSITION,)]).root
    assert len(root.edges) == 3
    assert LANGUAGE.text(root.edges[0].ids).endswith("(P4_2/mnm) Ti")
    assert GROUP + 225 not in {edge.ids[5] for edge in root.edges}  # the grammar excludes it
    assert [edge.prior for edge in root.edges] == pytest.approx([0.909, 0.045, 0.045], abs=1e-3)
    assert len(tree([(COMPOSITION,)], n_space_groups=7).root.edges) == 7


def test_pending_visits_part_and_rewards_add_up():
    policy = tree([(COMPOSITION,)])
    proposals = policy.propose(0, 3)
    assert len({proposal.ids for proposal in proposals}) == 3
    assert (policy.root.pending, policy.root.visits) == (3, 0)
    policy.learn(proposals, [[Outcome(p.ids, None, -0.25)] for p in proposals])
    assert (policy.root.pending, policy.root.visits, policy.root.total) == (0, 3, -0.75)
    assert all(proposal.node.edges for proposal in proposals)


def test_several_prompts_are_children_of_the_root():
    policy = tree([(COMPOSITION, 136), (COMPOSITION, 1)])
    assert [edge.prior for edge in policy.root.edges] == [0.5, 0.5]
    proposals = policy.propose(0, 2)
    assert sorted(proposal.root for proposal in proposals) == [0, 1]
    for proposal in proposals:
        assert proposal.ids[5] == GROUP + (136, 1)[proposal.root]
