"""What a process that can be lost does for energies: it loads a model once, and then asks it.

A process loads the model as it imports the function of its tasks: the limit for its start holds for that, and
a model that can't be loaded is an error of the whole run, not of one crystal. So the name of the function
says which model: `crystallm.energy.worker:scoring.m5b22...`. Knows tasks as JSON; refuses to know whose.
"""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from crystallm.energy import protocol, registry
from crystallm.errors import CrystallmError, describe
from crystallm.execution.tasks import WorkerStartError
from crystallm.structures import conversion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pymatgen.core import Structure

    from crystallm.energy.protocol import EnergyModel

MEMORY_GB = 16.0
"""Address space of one process, GiB: torch with CUDA's libraries maps much more than it uses."""
_START = re.compile(r"^a worker process for \S+ did not start: (?:InputError: |CrystallmError: )?")


class WithModel:
    """A task with the model that the name of an attribute tells: m and the digits of its JSON.

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
    """The name by which a process loads a model and a function.

    Args:
        kind: `scoring` or `relaxing`.
        model: see `model.load`.
        device: likewise.
    """
    return f"{__name__}:{kind}.m{json.dumps([model, device]).encode().hex()}"


def memory_gb(device: str) -> float:
    """The limit of a process, GiB; 0 for none, where a GPU's driver asks for more addresses than that."""
    return MEMORY_GB if device == "cpu" else 0.0


@contextmanager
def plainly() -> Iterator[None]:
    """Tell why a process could not load its model without the name of its function."""
    try:
        yield
    except WorkerStartError as error:
        raise CrystallmError(_START.sub("", str(error))) from None


@lru_cache(maxsize=1)
def _loaded(model: str, device: str) -> EnergyModel:
    return registry.load(model, device=device)


def _score(model: EnergyModel, task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`energy` (eV per atom) or `lost` (why there is none) of each of some packed structures."""
    structures = [conversion.from_json(record) for record in task["structures"]]
    try:
        found = model.predict(structures)
        return [_answer(prediction, task["bound"]) for _, prediction in zip(structures, found, strict=True)]
    except Exception:  # noqa: BLE001 - one of them can't be taken; the others can, each alone
        return [_alone(model, structure, task["bound"]) for structure in structures]


def _alone(model: EnergyModel, structure: Structure, bound: float) -> dict[str, Any]:
    try:
        (prediction,) = model.predict([structure])
        return _answer(prediction, bound)
    except Exception as error:  # noqa: BLE001 - it costs this crystal its energy
        return {"lost": describe(error)}


def _answer(prediction: protocol.Prediction, bound: float) -> dict[str, Any]:
    wrong = protocol.problem(prediction, bound)
    return {"lost": wrong} if wrong else {"energy": float(prediction.energy)}


def _relax(model: EnergyModel, task: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a relaxed structure, see `relax`; or `lost`, why there is none."""
    from crystallm.energy import relaxation

    options = relaxation.RelaxOptions(**task["options"])
    try:
        return relaxation.relax(
            conversion.from_json(task["structure"]), model, options, bound=task["bound"]
        ).record()
    except CrystallmError as error:
        return {"lost": str(error)}


scoring = WithModel(_score)
relaxing = WithModel(_relax)
