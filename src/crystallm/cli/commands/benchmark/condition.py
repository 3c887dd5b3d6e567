"""`crystallm benchmark condition`: requested values of properties against those of the crystals."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from crystallm.benchmarks.options import ConditionOptions
from crystallm.cli.console import print_json, print_table, progress
from crystallm.cli.option_groups import Flat, OutputOptions, Positional, with_argument
from crystallm.errors import InputError
from crystallm.generation.request import SamplingOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.benchmarks.conditions.scores import PropertyScore


def condition(
    data: Positional = None,
    /,
    *,
    options: Flat[ConditionOptions] = ConditionOptions.defaults(),
    sampling: Flat[SamplingOptions] = SamplingOptions.defaults(),
    output: Flat[OutputOptions] = OutputOptions.defaults(),
) -> None:
    """How well does a model follow requested values of properties?

    crystallm benchmark condition data --model run/model --condition density --given nothing

    The values of known crystals of a data set are requested, one property at a time. Density and volume are
    computed from the sampled crystals, formation energies by an energy model, others by --predictor. The same
    requests without the value are sampled with the same seed: the composition decides much of a density.
    """
    from crystallm.benchmarks.conditions import benchmark
    from crystallm.models.load import load_model
    from crystallm.storage import files

    options = with_argument(options, "data", data)
    if options.data is None:
        raise InputError("no data: name a data set of crystallm prepare")
    if options.out is not None:
        files.check_place(options.out.parent)
    model = load_model(sampling.model, device=sampling.device, dtype=sampling.dtype)
    with progress("generating crystals", None, shown=output.progress) as advance:
        results = benchmark.run(model, options, sampling, progress=advance)
    summary = {
        "benchmark": "condition",
        "data": Path(options.data).name,
        "given": options.given,
        "properties": [files.without_nan(asdict(result.score)) for result in results],
        "settings": sampling.model_dump(),
    }
    if options.out is not None:
        rows = {result.score.name: result.rows for result in results}
        files.write_json(options.out, summary | {"samples": files.without_nan(rows)})
    if output.as_json:
        print_json([summary])
    elif not output.quiet:
        strength = f"guidance {sampling.guidance:g}"
        title = f"{Path(options.data).name}, given: {options.given}, {strength}, model {model.name}"
        print_scores(title, [result.score for result in results])


def print_scores(title: str, scores: Sequence[PropertyScore]) -> None:
    """Print the scores of each property, and the distributions of its values."""
    heads = ("property", "crystals", "Spearman (95 %)", "MAE", "without: Spearman", "MAE", "within one entry")
    lines = [
        (
            f"{score.name} {score.unit}".strip(),
            f"{score.n_found} of {score.n}",
            f"{_number(score.spearman)} ({_number(score.interval[0])} to {_number(score.interval[1])})",
            _number(score.mae),
            _number(score.plain_spearman),
            _number(score.plain_mae),
            _number(score.within),
        )
        for score in scores
    ]
    print_table(heads, lines, title)
    rows = [
        (score.name, kind, *(f"{value:.3g}" for value in values))
        for score in scores
        for kind, values in score.quantiles.items()
        if values
    ]
    print_table(("property", "values", "10 %", "median", "90 %"), rows, left=(0, 1))


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"
