"""Clusters and ranks of a job."""

from __future__ import annotations


def test_duplicates_are_counted_and_crystals_ranked(rutile):
    ranks = sorted(one["rank"] for one in rutile["crystals"])
    assert ranks == [1, 2, 3]
    for one in rutile["crystals"]:
        alike = [other for other in rutile["crystals"] if other["cluster"] == one["cluster"]]
        assert one["cluster_size"] == len(alike)
