"""CHGNet as an energy model: its units and batches. CHGNet is imported when a model is made."""

from __future__ import annotations

import contextlib
import io
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm.energy.protocol import Prediction
from crystallm.errors import quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure

BATCH = 16
"""Crystals in a batch on a GPU, CHGNet's own default. On a CPU each is computed alone: a batch is not faster,
and the last digits would depend on the others, so that a resumed run would end differently."""


UNNEEDED = ("chgnet.model.dynamics", "chgnet.utils.vasp_utils")
"""Modules for molecular dynamics and for VASP that CHGNet's packages import. With them come ASE, matplotlib
and scipy.signal, nine tenths of the time that loading CHGNet takes."""


class _StandIn(ModuleType):
    """Stands for a module that is not needed: all its names are None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class ChgnetModel:
    """CHGNet 0.3.0 (Deng et al. 2023), with the weights of its package.

    An atom without neighbours within 6 Å is refused, as by CHGNet: it learned of none.
    """

    name = "chgnet"

    def __init__(self, device: str = "auto") -> None:
        from crystallm.execution.devices import resolve_device

        # An explicit device: CHGNet's own choice takes Apple's GPU, which lacks double precision.
        where = resolve_device(device)
        self._batch = 1 if where.type == "cpu" else BATCH
        with contextlib.redirect_stdout(io.StringIO()):  # it greets
            network: Any = _network_class().load(use_device=str(where), verbose=False)
        self._model = network.eval().requires_grad_(requires_grad=False)
        self._device = where

    def predict(self, structures: Sequence[Structure], *, forces: bool = False) -> list[Prediction]:
        """Return energies, and by differentiation forces and stress; see `EnergyModel`."""
        with quiet_libraries():
            return [
                prediction
                for start in range(0, len(structures), self._batch)
                for prediction in self._predict(structures[start : start + self._batch], forces)
            ]

    def _predict(self, structures: Sequence[Structure], forces: bool) -> list[Prediction]:
        """Predict a batch; one backward pass gives the derivatives by both positions and cells."""
        import torch

        graphs = [self._model.graph_converter(structure) for structure in structures]
        with torch.set_grad_enabled(forces):
            energies = self._model([graph.to(self._device) for graph in graphs], task="e")["e"]  # eV per atom
        if not forces:
            return [Prediction(float(energy)) for energy in energies]
        n_atoms = torch.tensor([len(structure) for structure in structures], device=self._device)
        # Fractions x (n_atoms, 3) and vectors L (3, 3) of each graph are leaves, and positions are x L.
        leaves = [leaf for graph in graphs for leaf in (graph.atom_frac_coord, graph.lattice)]
        slopes = [
            slope.cpu().numpy().astype(np.float64)
            for slope in torch.autograd.grad((energies * n_atoms).sum(), leaves)
        ]
        predictions = []
        for energy, structure, by_points, by_lattice in zip(
            energies, structures, slopes[::2], slopes[1::2], strict=True
        ):
            lattice = structure.lattice
            # At constant x a strain e changes L to L (1 + e).
            stress = lattice.matrix.T @ by_lattice / lattice.volume
            predictions.append(
                Prediction(float(energy), -by_points @ lattice.inv_matrix.T, (stress + stress.T) / 2)
            )
        return predictions


def _network_class() -> Any:
    """Return the class of CHGNet's network; imports its packages without `UNNEEDED`."""
    packages = [name.rpartition(".")[0] for name in UNNEEDED]
    if any(name in sys.modules for name in (*packages, *UNNEEDED)):
        from chgnet.model import CHGNet

        return CHGNet
    sys.modules.update({name: _StandIn(name) for name in UNNEEDED})
    try:
        from chgnet.model import CHGNet
    finally:  # who imports the packages after this gets all of them
        for name in (*packages, *UNNEEDED):
            sys.modules.pop(name, None)
    return CHGNet
