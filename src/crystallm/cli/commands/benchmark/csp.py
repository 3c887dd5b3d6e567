"""`crystallm benchmark`: crystal structure prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystallm.benchmarks.options import CspOptions
from crystallm.cli.console import print_json, print_table, progress_bars
from crystallm.cli.option_groups import Flat, OutputOptions, Positional, with_argument
from crystallm.execution.place import ExecutionOptions
from crystallm.generation.request import PlainSamplingOptions
from crystallm.references.options import ReferenceOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.benchmarks.metrics import Line


def csp(
    data: Positional = None,
    /,
    *,
    options: Flat[CspOptions] = CspOptions.defaults(),
    sampling: Flat[PlainSamplingOptions] = PlainSamplingOptions.defaults(),
    execution: Flat[ExecutionOptions] = ExecutionOptions.defaults(),
    known: Flat[ReferenceOptions] = ReferenceOptions.defaults(),
    output: Flat[OutputOptions] = OutputOptions.defaults(),
) -> None:
    """Crystal structure prediction: how often the known structure is among n samples for its composition.

    crystallm benchmark mp_20 -n 1,20 --limit 500 --out out/mp_20

    crystallm benchmark mp_20 --from references --references train.parquet --leave-out id

    The prompt holds the composition of the known structure's conventional cell. Matches are those of
    pymatgen's StructureMatcher (stol 0.5, angle_tol 10, ltol 0.3); rates are over all entries, with bootstrap
    intervals. With --out, a killed run resumes. With --generated, crystals of any program are scored.
    """
    from crystallm.pipelines import csp_benchmark

    options = with_argument(options, "data", data)
    result = csp_benchmark.run(
        options, sampling, execution, known=known, progress=progress_bars(shown=output.progress)
    )
    if output.as_json:
        print_json([result.record])
    elif not output.quiet:
        print_lines(result.title, result.lines)


def print_lines(title: str, lines: Sequence[Line]) -> None:
    """Print the table of the benchmark."""
    from crystallm.benchmarks.csp_table import LINES, line_cells

    last = len(LINES) - 1
    print_table(LINES, map(line_cells, lines), title, left=(0, last))
