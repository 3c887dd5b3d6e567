"""Columns and rows of tables of crystals."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from crystallm.crystals import ranking
from crystallm.crystals import selection as crystals_selection

COLUMNS = {
    "request": "int32",
    "sample": "int32",
    "requested_formula": "string",
    "requested_elements": "string",
    "requested_z": "int32",
    "requested_space_group": "string",
    "prompt": "string",
    "conditions": "string",
    "z_probability": "float64",
    "space_group_probability": "float64",
    "formula": "string",
    "reduced_formula": "string",
    "z": "int32",
    "n_atoms": "int32",
    "space_group": "string",
    "space_group_number": "int32",
    "a": "float64",
    "b": "float64",
    "c": "float64",
    "alpha": "float64",
    "beta": "float64",
    "gamma": "float64",
    "volume_per_atom": "float64",
    "log_likelihood": "float64",
    "n_tokens": "int32",
    "ended": "bool",
    "valid": "bool",
    "plausible": "bool",
    "reasons": "string",
    "bond_score": "float64",
    "cluster": "int32",
    "cluster_size": "int32",
    "rank": "int32",
    "kept": "bool",
    "energy": "float64",
    "energy_reason": "string",
    "formation_energy": "float64",
    "e_above_hull": "float64",
    "model": "string",
    "seed": "uint64",
    "sample_index": "uint64",
    "relative": "string",
    "relative_formula": "string",
    "relative_distance": "float64",
    "file": "string",
    "text": "string",
    "cif": "string",
}
"""Columns of a table of crystals, with their pyarrow types. Lengths in Å, angles in degrees, volume in Å^3,
energy in eV per atom, log-likelihood in nats, probabilities from 0 to 1.

`conditions` are the values of properties that the network was given, `density=5.2 band_gap=1.31`.
What cannot be computed is null, with the reason in `reasons`. cluster, cluster_size and rank are null
without ranking; energy, formation_energy and e_above_hull unless they are requested, with the reason for a
missing energy in `energy_reason`. `kept` is false for what only_valid or best drop. relative,
relative_formula and relative_distance name the known crystal
that one was made of (see `references.scorer`), null for sampled crystals. With relaxation, energy, cell,
volume and `cif` are those of the relaxed structure, all other columns those of the sampled one."""

Row = TypeVar("Row", bound="Mapping[str, Any]")


def request_columns(request: Any) -> dict[str, Any]:
    """Return what a row holds of its `generation.request.Request`."""
    return {
        "requested_formula": request.formula,
        "requested_elements": request.elements,
        "requested_z": None if request.z == "auto" else request.z,
        "requested_space_group": request.space_group,
        "prompt": request.prompt,
    }


def select_rows(rows: Sequence[Row], selection: crystals_selection.SelectionOptions) -> list[Row]:
    """Return the selected rows of a request, in their order."""
    ranks, clusters = [row["rank"] for row in rows], [row["cluster"] for row in rows]
    return [
        rows[i]
        for i in ranking.selected(ranks, clusters, [bool(row["plausible"]) for row in rows], selection)
    ]


def by_request(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield the rows of each request; rows of one request are consecutive."""
    return (list(found) for _, found in itertools.groupby(rows, key=lambda row: row["request"]))
