"""Energies of many crystals, from a model that may raise, hang, crash, or talk nonsense.

Each of these costs one crystal its energy, and nothing else: crystals are asked about in groups, in processes
that can be lost; those of a group that was lost are asked about once more, each alone. Refuses to know what
energies are for.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from crystallm.energy import protocol, registry, worker
from crystallm.energy.relaxation import Relaxed, RelaxOptions
from crystallm.execution import mapping, pool
from crystallm.execution import tasks as execution_tasks
from crystallm.execution.tasks import Failure
from crystallm.structures import conversion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Executor

    from pymatgen.core import Structure


RELAX_SECONDS = 600.0
"""Limit for one crystal."""


def relax_many(
    structures: Iterable[Structure | str],
    model: str = registry.DEFAULT,
    options: RelaxOptions | None = None,
    *,
    device: str = "cpu",
    n_workers: int = 1,
    seconds: float = RELAX_SECONDS,
    bound: float = protocol.BOUND,
    executor: Executor | None = None,
) -> Iterator[tuple[int, Relaxed | execution_tasks.Failure]]:
    """Relax structures in processes that can be lost.

    Args:
        structures: ordered ones, or CIFs, which the processes read; drawn as they are needed.
        model: by name, see `model.load`; each process loads it.
        options: None for the defaults.
        device: where the processes run it.
        n_workers: processes at a time.
        seconds: limit for one structure; loading not counted.
        bound: on |E|, eV per atom.
        executor: where to run in place of processes of this machine.

    Returns:
        An iterator over (number of the structure, what became of it or why nothing), as they finish.

    Raises:
        InputError, CrystallmError: at once, there is no such model; while drawing, it cannot be loaded.
    """
    registry.require(model)
    same = {"options": (options or RelaxOptions()).model_dump(), "bound": bound}
    tasks = ({"structure": conversion.to_json(structure), **same} for structure in structures)
    function = worker.function_of("relaxing", model, device)

    def relaxed() -> Iterator[tuple[int, Relaxed | execution_tasks.Failure]]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(worker.plainly())
            where = executor
            if where is None:
                memory = worker.memory_gb(device) or None
                where = stack.enter_context(pool.Pool(n_workers, seconds=seconds, memory_gb=memory))
            for i, found in mapping.stream(where, function, tasks, ahead=2 * n_workers):
                yield i, _unpack_relaxed(found)

    return relaxed()


def relax_all(
    structures: Sequence[Structure],
    model: str = registry.DEFAULT,
    options: RelaxOptions | None = None,
    *,
    device: str = "cpu",
    n_workers: int = 1,
    seconds: float = RELAX_SECONDS,
    bound: float = protocol.BOUND,
) -> list[Relaxed | execution_tasks.Failure]:
    """As `relax_many`, for a list, in processes that `workers.kept` keeps; equal ones are relaxed once."""
    registry.require(model)
    same = {"options": (options or RelaxOptions()).model_dump(), "bound": bound}
    packed = [conversion.to_json(structure) for structure in structures]
    distinct = {repr(record): record for record in packed}
    with worker.plainly():
        found = mapping.run(
            worker.function_of("relaxing", model, device),
            [{"structure": record, **same} for record in distinct.values()],
            workers=n_workers,
            seconds=seconds,
            memory_gb=worker.memory_gb(device),
        )
    results = dict(zip(distinct, map(_unpack_relaxed, found), strict=True))
    return [results[repr(record)] for record in packed]


def _unpack_relaxed(found: Any) -> Relaxed | execution_tasks.Failure:
    if isinstance(found, execution_tasks.Failure):
        return found
    return execution_tasks.Failure(found["lost"]) if "lost" in found else Relaxed.of_record(found)


GROUP = 16
"""Crystals that are asked about together, at most."""

SECONDS = 60.0
"""Limit for a group, and for each crystal of one that was lost. CHGNet takes a second for 100 atoms on a
core; what takes a minute is no cell that one wants."""


def score(
    structures: Sequence[Structure],
    model: str = registry.DEFAULT,
    *,
    device: str = "cpu",
    workers: int = 1,
    seconds: float = SECONDS,
    bound: float = protocol.BOUND,
    executor: Executor | None = None,
    group: int = GROUP,
) -> list[float | Failure]:
    """The energy of each crystal.

    Args:
        structures: crystals; identical ones are asked about once.
        model: by name, see `model.load`; each process loads it.
        device: where the processes run it.
        workers: processes at a time.
        seconds: limit for a group, or for one crystal where a group passed it; loading not counted.
        bound: on |E|, eV per atom.
        executor: where to run in place of processes of this machine.
        group: crystals that are asked about together, at most. Of 1, none is asked about twice.

    Returns:
        For each structure its energy, eV per atom; or why there is none.

    Raises:
        InputError, CrystallmError: there is no such model, or it cannot be loaded.
    """
    registry.require(model)
    keys: list[str] = []
    records: dict[str, dict[str, Any]] = {}
    found: dict[str, float | Failure] = {}
    for structure in structures:
        record = conversion.to_json(structure)
        keys.append(repr(record))
        if not structure.is_ordered:
            found[keys[-1]] = Failure("partial occupancies have no energy")
        else:
            records.setdefault(keys[-1], record)
    size = max(1, min(group, -(-len(records) // workers)))
    asked = list(records)
    groups = [asked[k : k + size] for k in range(0, len(asked), size)]

    def ask(groups: Sequence[Sequence[str]]) -> Iterable[tuple[Sequence[str], Any]]:
        with worker.plainly():
            answers = _run(
                worker.function_of("scoring", model, device),
                [{"structures": [records[key] for key in together], "bound": bound} for together in groups],
                workers=workers,
                seconds=seconds,
                memory_gb=worker.memory_gb(device),
                executor=executor,
            )
        return zip(groups, answers, strict=True)

    again: list[list[str]] = []
    for together, answer in ask(groups):
        if not isinstance(answer, Failure):
            found |= {key: _value(one) for key, one in zip(together, answer, strict=True)}
        elif len(together) == 1:
            found[together[0]] = answer
        else:
            again += [[key] for key in together]
    if again:
        for (key,), answer in ask(again):
            found[key] = answer if isinstance(answer, Failure) else _value(answer[0])
    return [found[key] for key in keys]


_run: Callable[..., list[Any]] = mapping.run  # `workers` is a number within `score`


def _value(answer: dict[str, Any]) -> float | Failure:
    return Failure(answer["lost"]) if "lost" in answer else float(answer["energy"])
