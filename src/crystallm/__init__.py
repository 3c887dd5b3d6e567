"""Plausible crystal structures from a chemical formula, written by a language model of crystals.

    import crystallm
    for crystal in crystallm.generate("TiO2", z=2, space_group="P4_2/mnm", n=5):
        print(crystal.space_group, crystal.validity.plausible)

This module holds the public names and loads what is behind them at first use, so that its import is quick.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from crystallm.lazy import public_names
from crystallm.version import __version__

if TYPE_CHECKING:
    from crystallm.crystals.crystal import Crystal
    from crystallm.crystals.selection import SelectionOptions
    from crystallm.diffraction.solution.solve import solve
    from crystallm.generation.generate import generate
    from crystallm.generation.request import SamplingOptions
    from crystallm.models.load import load_model
    from crystallm.models.model import Model
    from crystallm.structure_search.api import search
    from crystallm.structure_search.options import SearchOptions

# What spglib fails at is told by our errors; its own lines, from C, would stand between them on the terminal.
os.environ.setdefault("SPGLIB_WARNING", "OFF")
# Threads that wait for each other spin unless told before torch is loaded. With another process beside
# them, two that spin wrote 1.0 texts/s where two that sleep wrote 10 to 23 (`cif`, 60 tokens of each).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__all__ = [
    "Crystal",
    "Model",
    "SamplingOptions",
    "SearchOptions",
    "SelectionOptions",
    "__version__",
    "generate",
    "load_model",
    "search",
    "solve",
]
__getattr__, __dir__ = public_names(
    __name__,
    {
        "__version__": "crystallm.version",
        "Crystal": "crystallm.crystals.crystal",
        "Model": "crystallm.models.model",
        "SamplingOptions": "crystallm.generation.request",
        "SearchOptions": "crystallm.structure_search.options",
        "SelectionOptions": "crystallm.crystals.selection",
        "generate": "crystallm.generation.generate",
        "load_model": "crystallm.models.load",
        "search": "crystallm.structure_search.api",
        "solve": "crystallm.diffraction.solution.solve",
        "analysis": "crystallm.analysis:",
        "cif": "crystallm.cif:",
        "elements": "crystallm.crystallography.elements:",
        "energy": "crystallm.energy:",
        "export": "crystallm.export:",
        "formula": "crystallm.crystallography.formula:",
        "models": "crystallm.models:",
        "orbits": "crystallm.orbits:",
        "references": "crystallm.references:",
        "sources": "crystallm.sources:",
        "spacegroups": "crystallm.crystallography.space_groups:",
        "tokenizer": "crystallm.tokenizer:",
        "validity": "crystallm.validity:",
    },
)
