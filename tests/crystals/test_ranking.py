from __future__ import annotations

import pytest
from pymatgen.core import Lattice, Structure

from crystallm.crystals import ranking
from crystallm.crystals.crystal import Crystal
from crystallm.crystals.ranking import rank_samples, selected
from crystallm.crystals.selection import SelectionOptions
from crystallm.errors import CrystallmError, InputError
from crystallm.language import get_language
from crystallm.options import validated


def rock_salt(a: float, *, primitive: bool = False) -> Structure:
    cell = Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    return cell.get_primitive_structure() if primitive else cell


def cesium_chloride_type(a: float) -> Structure:
    return Structure(Lattice.cubic(a), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


# -- folding


def test_equal_crystals_are_one_whatever_cell_they_are_told_in(inline, textbook_structures):
    rutile = textbook_structures["rutile"]
    found = ranking.cluster_duplicates(
        [[rock_salt(5.64), cesium_chloride_type(3.5), rock_salt(5.5, primitive=True), None, rutile]]
    )
    assert found == [[0, 1, 0, None, 2]]


def test_requests_are_folded_apart(inline):
    assert ranking.cluster_duplicates(
        [[rock_salt(5.6)], [], [cesium_chloride_type(3.5), rock_salt(5.6)]]
    ) == [
        [0],
        [],
        [0, 1],
    ]


def test_a_process_that_is_lost_costs_only_the_comparison():
    # No process compares anything in a ten-thousandth of a second.
    same = rock_salt(5.64)
    assert ranking.cluster_duplicates([[same, rock_salt(5.5), same.copy()]], seconds=1e-4, workers=1) == [
        [0, 1, 0]
    ]


def test_a_package_that_is_missing_is_told_and_no_comparison_lost(tmp_path, monkeypatch):
    (tmp_path / "scipy.py").write_text("raise ModuleNotFoundError(\"No module named 'scipy'\", name='scipy')")
    monkeypatch.syspath_prepend(tmp_path)  # this process has scipy already, its workers have not
    with pytest.raises(CrystallmError, match="No module named 'scipy'; pip install pymatgen-core") as error:
        ranking.cluster_duplicates([[rock_salt(5.64), rock_salt(5.5)]], workers=1)
    assert "\n" not in str(error.value)


def test_a_needle_of_a_cell_equals_nothing_and_hinders_nobody(inline):
    needle = Structure(Lattice.orthorhombic(1.0, 1.0, 900.0), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert ranking.cluster_duplicates([[needle, rock_salt(5.6), needle.copy(), rock_salt(5.5)]]) == [
        [0, 1, 0, 1]
    ]


# -- ranking


def test_each_ranking_has_its_own_first():
    clusters = [0, 1, 1, 1, 2, 2]
    likelihood = [-1.0, -9.0, -8.0, -9.0, -3.0, -2.0]
    valid = [True] * 6
    first = {by: rank_samples(clusters, likelihood, valid, by).index(1) for by in ("agreement", "likelihood")}
    assert first == {"agreement": 2, "likelihood": 0}
    # Places: cluster 0 third and first, 1 first and third, 2 second and second; of equal sums the likelier.
    assert rank_samples(clusters, likelihood, valid, "combined") == [1, 5, 3, 6, 4, 2]


def test_distinct_crystals_come_before_repeats_and_what_is_no_crystal_has_no_rank():
    ranks = rank_samples([0, None, 0, 1], [-1.0, -0.5, -2.0, -7.0], [True, False, True, True], "agreement")
    assert ranks == [1, None, 3, 2]


def test_valid_crystals_come_first_and_stand_for_their_cluster():
    ranks = rank_samples([0, 0, 0, 1], [-1.0, -1.0, -5.0, -9.0], [False, False, True, True], "agreement")
    assert ranks.index(1) == 2
    assert rank_samples([0, 0, 1], [-1.0, -1.0, -50.0], [False, False, True], "likelihood")[2] == 1


def test_an_unknown_likelihood_is_the_least():
    assert rank_samples([0, 1], [float("nan"), -1e9], [True, True], "likelihood") == [2, 1]


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


# -- what is kept


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"valid": True}, [0, 2]),
        ({"rank": "combined"}, [2, 0, 1, 3]),
        ({"best": 1}, [2]),
        ({"best": 9}, [2, 0]),  # the third is a repeat
        ({"best": 9, "valid": True}, [2, 0]),
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
        validated(SelectionOptions, {"max_attempts": 5})
