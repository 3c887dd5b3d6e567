from __future__ import annotations

import pytest

from crystallm.crystals import ranking
from crystallm.crystals.crystal import Crystal
from crystallm.crystals.ranking import rank_samples, selected
from crystallm.crystals.selection import SelectionOptions
from crystallm.errors import InputError
from crystallm.language import get_language


def test_each_ranking_has_its_own_first():
    clusters = [0, 1, 1, 1, 2, 2]
    likelihood = [-1.0, -9.0, -8.0, -9.0, -3.0, -2.0]
    valid = [True] * 6
    unknown = [None] * 6
    first = {
        by: rank_samples(clusters, likelihood, valid, by, volumes=unknown).index(1)
        for by in ("agreement", "likelihood")
    }
    assert first == {"agreement": 2, "likelihood": 0}
    # Places: cluster 0 third and first, 1 first and third, 2 second and second; of equal sums the likelier.
    assert rank_samples(clusters, likelihood, valid, "combined", volumes=unknown) == [1, 5, 3, 6, 4, 2]


def test_crystals_may_count_differently():
    """Two that agree count less than a relative with most of the votes."""
    given = ([0, 0, 1], [-9.0, -8.0, -0.2], [True] * 3, "agreement")
    assert rank_samples(*given, volumes=[None] * 3).index(1) == 1
    assert rank_samples(*given, volumes=[None] * 3, weights=[1.0, 1.0, 2.4]).index(1) == 2


def test_distinct_crystals_come_before_repeats_and_what_is_no_crystal_has_no_rank():
    likelihood, valid = [-1.0, -0.5, -2.0, -7.0], [True, False, True, True]
    ranks = rank_samples([0, None, 0, 1], likelihood, valid, "agreement", volumes=[None] * 4)
    assert ranks == [1, None, 3, 2]


def test_valid_crystals_come_first_and_stand_for_their_cluster():
    likelihood, valid = [-1.0, -1.0, -5.0, -9.0], [False, False, True, True]
    ranks = rank_samples([0, 0, 0, 1], likelihood, valid, "agreement", volumes=[None] * 4)
    assert ranks.index(1) == 2
    ranks = rank_samples(
        [0, 0, 1], [-1.0, -1.0, -50.0], [False, False, True], "likelihood", volumes=[None] * 3
    )
    assert ranks[2] == 1


def test_an_unknown_likelihood_is_the_least():
    ranks = rank_samples([0, 1], [float("nan"), -1e9], [True, True], "likelihood", volumes=[None] * 2)
    assert ranks == [2, 1]


def test_for_a_cluster_stands_no_crystal_of_outlying_volume():
    clusters, valid = [0] * 6 + [1], [True] * 5 + [False, True]
    likelihood, volumes = [-1.0, -2.0, -3.0, -4.0, -5.0, -0.5, -0.1], [8.0, 12.0, 10.4, 10.5, 10.3, 10.4, 1.0]
    first = {
        by: rank_samples(clusters, likelihood, valid, by, [None] * 7, volumes=volumes).index(1)
        for by in ("agreement", "likelihood")
    }
    # Likelier are one that is too dense, one that is too loose, and one that is not valid.
    assert first == {"agreement": 2, "likelihood": 6}
    ranks = rank_samples(clusters, likelihood, valid, "agreement", [None] * 7, volumes=[None] * 7)
    assert ranks.index(1) == 0


def test_ranking_sets_what_a_table_shows(inline, textbook_structures):
    language = get_language("orbits")

    def crystal(name, log_likelihood):
        return Crystal(language, language.encode(textbook_structures[name]), log_likelihood=log_likelihood)

    found = [crystal("rocksalt", -5.0), crystal("rutile", -9.0), crystal("rutile", -7.0)]
    found.append(Crystal(language, []))
    ranking.rank([found], "agreement")
    rows = [crystal.row() for crystal in found]
    assert [(row["cluster"], row["cluster_size"], row["rank"]) for row in rows] == [
        (0, 1, 2),
        (1, 2, 3),
        (1, 2, 1),
        (None, None, None),
    ]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"only_valid": True}, [0, 2]),
        ({"rank": "combined"}, [2, 0, 1, 3]),
        ({"best": 1}, [2]),
        ({"best": 9}, [2, 0]),  # the third is a repeat
        ({"best": 9, "only_valid": True}, [2, 0]),
    ],
)
def test_what_is_kept(selection, expected):
    ranked = "rank" in selection or "best" in selection
    ranks = [2, 3, 1, None] if ranked else [None] * 4
    clusters = [0, 0, 1, None] if ranked else [None] * 4
    assert selected(ranks, clusters, [True, False, True, False], SelectionOptions(**selection)) == expected


def test_a_selection_says_what_it_means():
    assert SelectionOptions().attempts(7) == 7
    assert SelectionOptions(only_valid=True).attempts(7) == 70
    assert SelectionOptions(only_valid=True, max_attempts=5).attempts(7) == 5
    assert (SelectionOptions().ranking, SelectionOptions(best=3).ranking) == (None, "agreement")
    with pytest.raises(InputError, match="max_attempts = 5 without only_valid"):
        SelectionOptions.build({"max_attempts": 5})
