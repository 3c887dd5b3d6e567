"""Energies of crystals, from any model behind one protocol, and relaxation.

`model` says what an energy model is and finds one by its name; `conformance` looks whether one keeps to it;
`scoring` and `relax` ask it about many crystals, in processes that can be lost. Nothing heavy is imported
before a model is.
"""

from __future__ import annotations

from crystallm.energy.conformance import check
from crystallm.energy.protocol import EnergyModel, Prediction
from crystallm.energy.registry import load

__all__ = ["EnergyModel", "Prediction", "check", "load"]
