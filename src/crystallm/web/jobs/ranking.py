"""Ranks and clusters of a job's crystals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystallm.crystals.ranking import rank_samples, sample_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystallm.web.jobs.job import Job
    from crystallm.web.jobs.services import JobServices


async def rank(
    services: JobServices, job: Job, summaries: Mapping[int, Mapping[str, Any]], *, by_energy: bool
) -> None:
    """Cluster duplicates, rank crystals by energy or else cluster size, and report both as an `update`."""
    numbers = sorted(summaries)
    ordered = [summaries[number] for number in numbers]
    clusters = await services.clusters([summary.get("structure") for summary in ordered])
    ranks = rank_samples(
        clusters,
        [summary.get("log_likelihood") or float("nan") for summary in ordered],
        [bool(summary.get("plausible")) for summary in ordered],
        "energy" if by_energy else "agreement",
        [summary.get("energy") for summary in ordered],
        volumes=[(summary.get("relaxed") or summary).get("volume_per_atom") for summary in ordered],
        weights=sample_weights([summary.get("probability") for summary in ordered]),
    )
    updates = [
        {
            "number": number,
            "cluster": cluster,
            "cluster_size": None if cluster is None else clusters.count(cluster),
            "rank": rank,
        }
        for number, cluster, rank in zip(numbers, clusters, ranks, strict=True)
    ]
    job.add_event("update", updates)
