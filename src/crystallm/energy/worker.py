"""Energies and relaxations inside a worker process, which loads the energy model once.

A process loads the model as it imports the function of its tasks. So the limit of its start holds for that,
and a model that cannot be loaded is an error of the whole run, not of one crystal. The name of the function
therefore names the model: `crystallm.energy.worker:scoring.m5b22...`.
"""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from crystallm.energy import protocol, registry
from crystallm.errors import CrystallmError, describe
from crystallm.execution.tasks import Limits, WorkerStartError
from crystallm.structures import conversion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pymatgen.core import Structure

    from crystallm.energy.protocol import EnergyModel

MEMORY_GB = 16.0
"""Address space of one process, GiB: torch with CUDA's libraries maps much more than it uses."""
_START = re.compile(r"^a worker process for \S+ did not start: (?:InputError: |CrystallmError: )?")


class WithModel:
    """A function of an energy model and a task; an attribute names the model: m and the digits of its JSON.

    Args:
        function: from a model and a task to a value.
    """

    def __init__(self, function: Callable[[EnergyModel, Any], Any]) -> None:
        self._function = function

    def __getattr__(self, name: str) -> Callable[[Any], Any]:
        if not re.fullmatch("m(?:[0-9a-f]{2})+", name):
            raise AttributeError(name)
        model, device = json.loads(bytes.fromhex(name[1:]))
        return partial(self._function, _loaded(model, device))


def function_of(kind: str, model: str, device: str) -> str:
    """Return the name by which a process loads a model and a function.

    Args:
        kind: `scoring` or `relaxing`.
    """
    return f"{__name__}:{kind}.m{json.dumps([model, device]).encode().hex()}"


def limits(device: str, seconds: float) -> Limits:
    """Return the limits of a task; the driver of a GPU maps more addresses than any limit of memory."""
    return Limits(seconds, MEMORY_GB if device == "cpu" else None)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Report why a process could not load its model, without the name of its function."""
    try:
        yield
    except WorkerStartError as error:
        raise CrystallmError(_START.sub("", str(error))) from None


@lru_cache(maxsize=1)
def _loaded(model: str, device: str) -> EnergyModel:
    return registry.load(model, device=device)


def _score(model: EnergyModel, task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return `energy` (eV/atom) or `failed` (the reason) for each structure, given as JSON."""
    structures = [conversion.from_json(record) for record in task["structures"]]
    try:
        predictions = model.predict(structures)
        return [_record(energy, task["bound"]) for _, energy in zip(structures, predictions, strict=True)]
    except Exception:  # noqa: BLE001 - one of them fails; the others are computed one by one
        return [_score_one(model, structure, task["bound"]) for structure in structures]


def _score_one(model: EnergyModel, structure: Structure, bound: float) -> dict[str, Any]:
    try:
        (prediction,) = model.predict([structure])
        return _record(prediction, bound)
    except Exception as error:  # noqa: BLE001 - this crystal has no energy
        return {"failed": describe(error)}


def _record(prediction: protocol.Prediction, bound: float) -> dict[str, Any]:
    problem = protocol.problem(prediction, bound)
    return {"failed": problem} if problem else {"energy": float(prediction.energy)}


def _relax(model: EnergyModel, task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a relaxed structure, or why it `failed`."""
    from crystallm.energy import relaxation

    options = relaxation.RelaxOptions(**task["options"])
    try:
        given, notes = conversion.read_json(task["structure"])
        relaxed = relaxation.relax(given, model, options, bound=task["bound"])
        return relaxed.record() | {"note": "; ".join(notes)}
    except CrystallmError as error:
        return {"failed": str(error)}


scoring = WithModel(_score)
relaxing = WithModel(_relax)
