"""What the search by elites remembers."""

from __future__ import annotations

import pytest

from crystallm.language import get_language
from crystallm.structure_search.elite_policy import ElitePolicy
from crystallm.structure_search.options import EliteOptions
from crystallm.structure_search.policy import Outcome, Proposal, SearchPrompt
from crystallm.structure_search.prefixes import PrefixExplorer


@pytest.mark.parametrize("known", [False, True])
def test_an_equal_crystal_is_not_learned_again(known):
    """The second text has the lower energy; where it is of the same crystal, nothing goes on from it."""
    prompt, options = SearchPrompt((1, 2), 1.0), EliteOptions(warm_up=1, explore_share=0.0)
    policy = ElitePolicy(options, 0, [prompt], PrefixExplorer(get_language("cif"), None, 99))
    first, second = (1, 2, *range(10, 30)), (1, 2, *range(40, 60))
    policy.learn(
        [Proposal((1, 2), 0)], [[Outcome(first, -1.0, 0.0), Outcome(second, -1.5, 0.0, known=known)]]
    )
    starts = {one.ids[2] for one in policy.propose(1, 60) if len(one.ids) > 2}
    assert starts == ({10} if known else {10, 40})
