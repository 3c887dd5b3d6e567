"""Options of a search, and presets."""

import pytest

from crystallm.errors import InputError
from crystallm.generation.request import SamplingOptions
from crystallm.structure_search.options import EliteOptions, SearchOptions, TreeOptions, sampling_of


def test_the_preset_of_the_paper_is_a_default_that_gives_way():
    options = SearchOptions(preset="paper")
    assert (options.method, options.tree.width, options.tree.exploration) == ("tree", 10, 5.0)
    assert (options.max_simulations, options.parallel_simulations) == (200, 1)
    expected = SamplingOptions(seed=3, top_k=10, max_new_tokens=1000)
    assert sampling_of(options, SamplingOptions(seed=3)) == expected
    assert sampling_of(options, SamplingOptions(max_new_tokens=20)).max_new_tokens == 20
    options = SearchOptions(
        preset="paper", energy_calls=50, parallel_simulations=2, tree=TreeOptions(width=3)
    )
    assert (options.max_simulations, options.parallel_simulations, options.tree.width) == (None, 2, 3)
    assert SearchOptions(preset="paper", method="elites").method == "elites"
    with pytest.raises(InputError, match="preset = 'theirs'"):
        SearchOptions.build({"preset": "theirs"})


@pytest.mark.parametrize(("given", "top_k"), [({}, 4), ({"top_k": 7}, 7), ({"top_k": None}, None)])
def test_a_tree_samples_among_its_branches_unless_top_k_is_set(given, top_k):
    options = SearchOptions(method="tree", tree=TreeOptions(width=4))
    assert sampling_of(options, SamplingOptions(**given)).top_k == top_k


def test_the_rule_greedy_has_its_own_exploration():
    assert TreeOptions(selection_rule="greedy").exploration == 0.1
    assert TreeOptions(selection_rule="greedy", exploration=0.3).exploration == 0.3
    assert TreeOptions(selection_rule="uct").exploration == 5.0
    with pytest.raises(InputError, match=r"exploration = 5.0 of greedy: give a share"):
        TreeOptions.build({"selection_rule": "greedy", "exploration": 5.0})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"tree": {"selection_rule": "greedy"}},
            r"selection_rule = 'greedy' has no effect with method = 'elites': .* \(--method tree\)",
        ),
        ({"tree": {"width": 5}, "method": "sampling"}, "width = 5 has no effect with method = 'sampling'"),
        (
            {"elites": {"explore_share": 0.25}, "method": "tree"},
            r"explore_share = 0.25 .* \(--method elites\)",
        ),
        ({"method": "sampling", "rollouts": 2}, "rollouts = 2 of plain sampling"),
        ({"width": 5}, "unknown option 'width'"),
    ],
)
def test_options_without_an_effect_are_rejected(given, message):
    with pytest.raises(InputError, match=message):
        SearchOptions.build(given)


def test_the_baseline_has_the_same_limits():
    options = SearchOptions(
        energy_calls=7, energy="energies:morse", rollouts=2, elites=EliteOptions(warm_up=3)
    )
    expected = SearchOptions(energy_calls=7, energy="energies:morse", method="sampling")
    assert options.baseline() == expected
