"""Request crystals with the values of known ones, and compare the values of what is sampled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystallm.benchmarks.conditions.predictors import load_predictor, parse_predictors
from crystallm.benchmarks.conditions.scores import score
from crystallm.benchmarks.reference_sets import spread
from crystallm.crystallography import formula as formulas
from crystallm.crystals.annotation import structure_of
from crystallm.datasets import shards
from crystallm.errors import InputError
from crystallm.generation.conditions import check_conditions, parse_conditions
from crystallm.generation.generator import Generator
from crystallm.generation.request import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from crystallm.benchmarks.conditions.predictors import Predictor
    from crystallm.benchmarks.conditions.scores import PropertyScore
    from crystallm.benchmarks.options import ConditionOptions
    from crystallm.crystals.crystal import Crystal
    from crystallm.generation.request import SamplingOptions
    from crystallm.models.model import Model

MIN_VOLUME, MAX_VOLUME = 1.0, 500.0
"""Volume per atom, Å^3, of crystals whose values are computed: energy models need a sensible cell."""


@dataclass(frozen=True, slots=True)
class Target:
    """A known crystal with a requested value.

    Attributes:
        entry: number of the crystal.
        fields: of the request, without the condition.
        value: requested.
    """

    entry: int
    fields: dict[str, Any]
    value: float


@dataclass(frozen=True)
class PropertyResult:
    """Scores of a property, and a row for each sample: formula, requested, found and plain value."""

    score: PropertyScore
    rows: list[dict[str, Any]]


def run(
    model: Model,
    options: ConditionOptions,
    sampling: SamplingOptions,
    *,
    progress: Callable[[int], None] | None = None,
) -> list[PropertyResult]:
    """Measure how well a model follows each property.

    Args:
        model: with conditions.
        options: of the benchmark.
        sampling: how to sample; its guidance counts.
        progress: called with the number of crystals so far, of each property with and without the value.

    Raises:
        InputError: no data set, no crystal with a value, a property that the model or nothing else knows.
    """
    known = model.config.conditions
    names = options.names or known
    unknown = [name for name in names or ("density",) if name not in known]
    check_conditions(model, parse_conditions([f"{name}=0" for name in unknown]))
    functions = parse_predictors(options.predictor)
    predictors = {
        name: load_predictor(name, functions, options.energy, workers=options.workers or 1) for name in names
    }
    folder = str(options.data)
    units = shards.property_units(folder)
    results = []
    for name in names:
        targets = read_targets(folder, name, options)
        sampled = []
        for conditioned in (True, False):
            requests = [_request(target, name, options.n, conditioned=conditioned) for target in targets]
            crystals = Generator(model, requests, sampling).generate(range(len(requests)), progress=progress)
            sampled.append([crystal for of_one in crystals for crystal in of_one])
        found, plain = (_values(crystals, predictors[name]) for crystals in sampled)
        spread_out = [target for target in targets for _ in range(options.n)]
        entries = [target.entry for target in spread_out]
        requested = [target.value for target in spread_out]
        rows = [
            {**target.fields, "entry": target.entry, "requested": target.value, "found": one, "plain": other}
            for target, one, other in zip(spread_out, found, plain, strict=True)
        ]
        scored = score(name, units.get(name, ""), entries, requested, found=found, plain=plain)
        results.append(PropertyResult(scored, rows))
    return results


def read_targets(folder: str, name: str, options: ConditionOptions) -> list[Target]:
    """Return the requests of crystals of a data set that have a value, spread evenly.

    Raises:
        InputError: no data set, no such property, or no crystal with a value.
    """
    from pyarrow import parquet

    shards.facts(folder)
    columns = ["split", "formula", "cell", name]
    with parquet.ParquetFile(Path(folder) / "rows.parquet") as file:
        if name not in file.schema_arrow.names:
            raise InputError(f"no property {name!r} in {folder!r}: prepare it with --property {name}")
        rows = file.read(columns).to_pylist()
    split = options.split or "val"
    known = [row for row in rows if row["split"] == split and row[name] is not None]
    if not known:
        raise InputError(f"no crystal of the split {split!r} in {folder!r} has a value of {name!r}")
    return [
        Target(entry, _fields(row, options.given), factor * row[name])
        for entry, row in enumerate(spread(known, options.limit))
        for factor in options.factors
    ]


def _fields(row: dict[str, Any], given: str) -> dict[str, Any]:
    """Return the fields of the request of a known crystal that are given beside the value."""
    if given == "nothing":
        return {}
    if given == "elements":
        return {"elements": "-".join(formulas.parse(row["formula"]))}
    if given == "formula":
        return {"formula": row["formula"], "z": "auto"}
    return {"formula": row["cell"], "z": formulas.cell(row["cell"]).z}


def _request(target: Target, name: str, n: int, *, conditioned: bool) -> Request:
    conditions = (f"{name}={target.value!r}",) if conditioned else ()
    return Request(**target.fields, n=n, conditions=conditions)


def _values(crystals: Sequence[Crystal], predictor: Predictor) -> list[float | None]:
    """Return the value of each crystal; None where it is none, or its cell is not sensible."""
    structures = {
        i: structure
        for i, crystal in enumerate(crystals)
        if (structure := structure_of(crystal)) is not None
        and MIN_VOLUME < structure.volume / len(structure) < MAX_VOLUME
    }
    found = dict(zip(structures, predictor(list(structures.values())), strict=True))
    return [found.get(i) for i in range(len(crystals))]
