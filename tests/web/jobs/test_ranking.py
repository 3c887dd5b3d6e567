"""Clusters and ranks of a job's crystals."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from crystallm.web.jobs.ranking import rank


def test_duplicates_are_counted_and_crystals_ranked(rutile):
    ranks = sorted(one["rank"] for one in rutile["crystals"])
    assert ranks == [1, 2, 3]
    for one in rutile["crystals"]:
        alike = [other for other in rutile["crystals"] if other["cluster"] == one["cluster"]]
        assert one["cluster_size"] == len(alike)


class Services:
    """Services for which structures of the same name are duplicates."""

    async def clusters(self, structures):
        return [None if name is None else "ab".index(name) for name in structures]


def crystal(formula, structure, energy):
    return {
        "reduced_formula": formula,
        "structure": structure,
        "energy": energy,
        "plausible": True,
        "log_likelihood": -1.0,
        "volume_per_atom": 10.0,
    }


@pytest.mark.parametrize(("by_energy", "best"), [(True, 3), (False, 0)])
def test_duplicates_are_counted_and_the_best_is_first(by_energy, best):
    summaries = {
        0: crystal("TiO2", "a", -1.0),
        1: {"broken": "unfinished"},
        2: crystal("TiO2", "a", -2.0),
        3: crystal("NaCl", "b", -3.0),
    }
    events = []
    job = SimpleNamespace(add_event=lambda *event: events.append(event))
    asyncio.run(rank(Services(), job, summaries, by_energy=by_energy))
    ((name, updates),) = events
    assert name == "update"
    assert [update["number"] for update in updates] == [0, 1, 2, 3]
    clusters = [update["cluster"] for update in updates]
    assert clusters[0] == clusters[2] != clusters[3]
    assert clusters[1] is None
    assert [update["cluster_size"] for update in updates] == [2, None, 2, 1]
    assert next(update["number"] for update in updates if update["rank"] == 1) == best
