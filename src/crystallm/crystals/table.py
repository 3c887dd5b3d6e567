"""Columns and rows of tables of crystals."""

from __future__ import annotations

COLUMNS = {
    "request": "int32",
    "sample": "int32",
    "asked_formula": "string",
    "asked_elements": "string",
    "asked_z": "int32",
    "asked_space_group": "string",
    "prompt": "string",
    "z_weight": "float64",
    "space_group_weight": "float64",
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
    "reasons": "string",
    "bond_score": "float64",
    "cluster": "int32",
    "cluster_size": "int32",
    "rank": "int32",
    "energy": "float64",
    "energy_reason": "string",
    "formation_energy": "float64",
    "e_above_hull": "float64",
    "model": "string",
    "seed": "uint64",
    "index": "uint64",
    "file": "string",
    "text": "string",
    "cif": "string",
}
"""Columns of a table of crystals, with their pyarrow types. Lengths in Å, angles in degrees, volume in Å^3,
energy in eV per atom, log-likelihood in nats, weights of what was `auto` from 0 to 1. What could not be
worked out is null; `reasons` says why. So are cluster, cluster_size and rank unless ranking was asked for,
and energy unless energies were; `energy_reason` says why one is missing. So are formation_energy and
e_above_hull. Where crystals were relaxed, those
with an energy are: it, the cell, the volume and `cif` are of what they have become, all else is of what was
written."""
