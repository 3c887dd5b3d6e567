"""CHGNet as an energy model: its units and batches. CHGNet is imported when a model is made."""

from __future__ import annotations

import contextlib
import io
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
_GPA = 1 / 160.21766208
"""eV/Å^3 of one GPa: CHGNet gives stress in GPa, in the sign of ASE (its calculator multiplies by this)."""


class ChgnetModel:
    """CHGNet 0.3.0 (Deng et al. 2023), with the weights of its package.

    An atom without neighbours within 6 Å is refused, as by CHGNet: it learned of none.
    """

    name = "chgnet"

    def __init__(self, device: str = "auto") -> None:
        from chgnet.model import CHGNet

        from crystallm.execution.devices import resolve_device

        # An explicit device: CHGNet's own choice takes Apple's GPU, which lacks double precision.
        where = resolve_device(device)
        self._batch = 1 if where.type == "cpu" else BATCH
        with contextlib.redirect_stdout(io.StringIO()):  # it greets
            self._model: Any = CHGNet.load(use_device=str(where), verbose=False)

    def predict(self, structures: Sequence[Structure], *, forces: bool = False) -> list[Prediction]:
        """Return energies, and by differentiation forces and stress; see `EnergyModel`."""
        if not structures:
            return []
        with quiet_libraries():
            graphs = [self._model.graph_converter(structure) for structure in structures]
            found = self._model.predict_graph(graphs, task="efs" if forces else "e", batch_size=self._batch)
        answers = [found] if len(graphs) == 1 else found  # of one graph it gives no list
        if not forces:
            return [Prediction(float(answer["e"])) for answer in answers]
        return [
            Prediction(
                float(answer["e"]),
                np.asarray(answer["f"], dtype=np.float64),
                _symmetric(np.asarray(answer["s"], dtype=np.float64) * _GPA),
            )
            for answer in answers
        ]


def _symmetric(stress: Any) -> Any:
    return (stress + stress.T) / 2
