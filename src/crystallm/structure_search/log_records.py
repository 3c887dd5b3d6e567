"""Rounds of a search as records of its log, and back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from crystallm.crystals.crystal import Crystal
from crystallm.sampling.sequence import Sample
from crystallm.structure_search.policy import Proposal
from crystallm.structure_search.results import SearchSample
from crystallm.validity import verdict


def to_record(
    result: SearchSample, proposal: Proposal, rollout: int, *, with_tokens: bool = False
) -> dict[str, Any]:
    """Return a sample as JSON.

    Args:
        rollout: its number in the simulation.
    """
    crystal = result.crystal
    source: Any = crystal.source
    record = {
        "simulation": result.simulation,
        "rollout": rollout,
        "index": source.index,
        "seconds": result.seconds,
        "move": result.move,
        "root": proposal.root,
        "n_prefix": len(proposal.ids),
        "call": result.call,
        "equals": result.equals,
        "energy": crystal.energy,
        "energy_reason": crystal.energy_reason,
        "objective": crystal.objective,
        "validity": asdict(crystal.validity),
        "log_likelihood": crystal.log_likelihood,
        "ended": crystal.ended,
        "ids": list(crystal.ids),
    }
    if with_tokens:
        sample: Any = result.sample
        record |= {
            "n_prompt": sample.n_prompt,
            "log_probs": list(sample.log_probs),
            "forced": [int(token) for token in sample.forced],
        }
    return record


def from_record(record: dict[str, Any], crystal: Crystal) -> SearchSample:
    """Return the sample of a record.

    Args:
        crystal: of the record's ids; its validity and energy are set.
    """
    crystal.set_validity(verdict.from_record(record["validity"]))
    crystal.energy, crystal.energy_reason = record["energy"], record["energy_reason"]
    crystal.objective = record.get("objective", crystal.energy)  # logs of earlier versions have none
    sample = None
    if "log_probs" in record:
        sample = Sample(
            number=0,
            index=record["index"],
            n_prompt=record["n_prompt"],
            ended=record["ended"],
            ids=tuple(record["ids"]),
            log_probs=tuple(record["log_probs"]),
            forced=tuple(map(bool, record["forced"])),
        )
    names = ("simulation", "seconds", "move", "call", "equals")
    return SearchSample(crystal, **{name: record[name] for name in names}, sample=sample)
