"""Energies and relaxations of many structures, by a model that may raise, hang, crash or return nonsense.

Any of these costs one structure its energy and nothing else. Structures are computed in groups, in killable
worker processes; those of a group that failed are computed once more, one by one.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

from crystallm.energy import protocol, registry, worker
from crystallm.energy.relaxation import Relaxed, RelaxOptions
from crystallm.execution.mapping import map_tasks, open_executor
from crystallm.execution.tasks import Failure
from crystallm.structures import conversion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Executor

    from pymatgen.core import Structure

RELAX_SECONDS = 600.0
"""Limit for relaxing one structure."""
GROUP = 16
"""Maximum number of structures whose energies are computed together."""
SECONDS = 60.0
"""Limit for a group, and for each structure of one that failed. CHGNet takes a second for 100 atoms on a
core; a cell that takes a minute is pathological."""


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
) -> Iterator[tuple[int, Relaxed | Failure]]:
    """Relax structures in worker processes.

    Args:
        structures: ordered ones, or CIFs, which the processes read; drawn as needed.
        seconds: limit for one structure; loading the model does not count.
        bound: on |E|, eV/atom.

    Returns:
        An iterator over (index of the structure, relaxed structure or why it failed), as they complete.

    Raises:
        InputError, CrystallmError: at once, if there is no such model; while iterating, if it cannot be
            loaded.
    """
    registry.require(model)
    same = {"options": (options or RelaxOptions()).model_dump(), "bound": bound}
    tasks: Iterator[dict[str, Any]] = (
        {"index": index, "structure": conversion.to_json(structure), **same}
        for index, structure in enumerate(structures)
    )
    function = worker.function_of("relaxing", model, device)
    limits = worker.limits(device, seconds)

    def results() -> Iterator[tuple[int, Relaxed | Failure]]:
        with (
            worker.plain_errors(),
            open_executor(executor, n_workers) as (opened, ahead),
            closing(map_tasks(opened, function, tasks, ahead=ahead, limits=limits)) as values,
        ):
            for task, value in values:
                yield task["index"], _relaxed(value)

    return results()


def relax_all(
    structures: Sequence[Structure],
    model: str = registry.DEFAULT,
    options: RelaxOptions | None = None,
    *,
    on_done: Callable[[int], None] | None = None,
    **how: Any,
) -> list[Relaxed | Failure]:
    """Relax structures, identical ones once, and return the results in their order; see `relax_many`.

    Args:
        structures: ordered ones.
        model: as for `relax_many`, as are all other options.
        options: likewise.
        on_done: called after each with the number of structures done.
        how: likewise.
    """
    keys = [repr(conversion.to_json(structure)) for structure in structures]
    distinct = dict(zip(keys, structures, strict=True))
    names, times = list(distinct), Counter(keys)
    results: dict[str, Relaxed | Failure] = {}
    for index, value in relax_many(distinct.values(), model, options, **how):
        results[names[index]] = value
        if on_done is not None:
            on_done(sum(times[key] for key in results))
    return [results[key] for key in keys]


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
    """Compute the energies of structures, of identical ones once.

    Args:
        seconds: limit for a group, and for one structure of a group that failed; loading does not count.
        bound: on |E|, eV/atom.
        group: maximum number of structures that are computed together.

    Returns:
        The energy of each structure, eV/atom; or why it has none.

    Raises:
        InputError, CrystallmError: there is no such model, or it cannot be loaded.
    """
    registry.require(model)
    keys: list[str] = []
    records: dict[str, dict[str, Any]] = {}
    energies: dict[str, float | Failure] = {}
    for structure in structures:
        record = conversion.to_json(structure)
        keys.append(repr(record))
        if not structure.is_ordered:
            energies[keys[-1]] = Failure("partial occupancies have no energy")
        else:
            records.setdefault(keys[-1], record)
    size = max(1, min(group, -(-len(records) // workers)))
    distinct = list(records)
    tasks: list[dict[str, Any]] = [
        {"keys": some, "structures": [records[key] for key in some], "bound": bound}
        for some in (distinct[start : start + size] for start in range(0, len(distinct), size))
    ]
    with worker.plain_errors(), open_executor(executor, workers, len(tasks)) as (opened, ahead):
        for task, values in map_tasks(
            opened,
            worker.function_of("scoring", model, device),
            tasks,
            ahead=ahead,
            limits=worker.limits(device, seconds),
            split=_one_by_one,
        ):
            failed = isinstance(values, Failure)
            energies |= {key: values if failed else _energy(values[i]) for i, key in enumerate(task["keys"])}
    return [energies[key] for key in keys]


def _relaxed(value: dict[str, Any] | Failure) -> Relaxed | Failure:
    if isinstance(value, Failure):
        return value
    return Failure(value["failed"]) if "failed" in value else Relaxed.of_record(value)


def _one_by_one(task: dict[str, Any]) -> list[dict[str, Any]]:
    pairs = zip(task["keys"], task["structures"], strict=True)
    return [task | {"keys": [key], "structures": [record]} for key, record in pairs]


def _energy(value: dict[str, Any]) -> float | Failure:
    return Failure(value["failed"]) if "failed" in value else float(value["energy"])
