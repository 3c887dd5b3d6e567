"""Requests that several tests of the web submit."""

from __future__ import annotations

RUTILE = {"kind": "generate", "formula": "TiO2", "z": 2, "n": 3, "seed": 5}
SEARCH = {"kind": "search", "formula": "TiO2", "z": 2, "simulations": 40, "seed": 3}
LONG_SEARCH = {**SEARCH, "simulations": 1000, "seed": 4}
