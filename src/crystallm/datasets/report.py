"""Report what became of every row of a preparation: counts, as JSON and as an HTML page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crystallm.datasets import shards
from crystallm.datasets.options import PrepareOptions
from crystallm.datasets.selection import RowStatus
from crystallm.errors import CrystallmError
from crystallm.sources.splits import SPLITS

JSON, HTML = "report.json", "report.html"
STEPS = {RowStatus.EXCLUDED: "exclude", RowStatus.DUPLICATE: "duplicate", RowStatus.UNSPLIT: "split"}
"""Names of the steps that need all rows."""
ORDER = (
    "read", "ordered", "elements", "atoms", "volume", "distance", "encode", "length", "failed", "exclude",
    "split", "duplicate",
)  # fmt: skip
"""Order of the steps."""


@dataclass(frozen=True)
class PreparationReport:
    """What became of the rows of a preparation.

    Attributes:
        rejected: rows rejected at each step, in the order of the steps; duplicates are not among them.
        reasons: the most frequent reasons, `step: reason`, and their counts.
        unreadable_known: entries of the excluded collections that could not be read.
        lengths: tokens of a crystal at the 0, 10, 50, 90, 99 and 100th percentile.
        unused_tokens: some tokens of the vocabulary that no crystal has, by name.
        n_unused, vocab_size: number of tokens that no crystal has, and of all tokens.
        augmentations: equivalent descriptions in the split `equivalents`.
        different: of these, those that differ from the canonical one.
        properties: for each its unit, the number of crystals with a value, and min, mean and max of these.
    """

    language: str
    read: int
    crystals: dict[str, int]
    tokens: dict[str, int]
    rejected: dict[str, int]
    duplicates: int
    reasons: dict[str, int]
    unreadable_known: int = 0
    elements: dict[str, int] = field(default_factory=dict)
    space_groups: dict[int, int] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()
    unused_tokens: tuple[str, ...] = ()
    n_unused: int = 0
    vocab_size: int = 0
    augmentations: int = 0
    different: int = 0
    properties: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def written(self) -> int:
        """Crystals in all splits; together with rejected rows and duplicates, all rows that were read."""
        return sum(self.crystals.values())


def read(folder: Path) -> PreparationReport:
    """Return the report of a data set folder. Raises CrystallmError: it does not exist or cannot be read."""
    path = folder / JSON
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["space_groups"] = {int(number): n for number, n in record["space_groups"].items()}
        for name in ("lengths", "unused_tokens"):
            record[name] = tuple(record[name])
        return PreparationReport(**record)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise CrystallmError(f"{str(path)!r} is not a report ({error}): prepare the data again") from None


@dataclass
class Counts:
    """The counts of a report while rows are written."""

    read: int = 0
    steps: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    elements: Counter[str] = field(default_factory=Counter)
    groups: Counter[int] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    different: int = 0
    used: npt.NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(shards.MAX_VOCABULARY, dtype=np.int64)
    )


def make_report(
    counts: Counts, language: str, crystals: Sequence[int], tokens: Sequence[int], unreadable_known: int
) -> PreparationReport:
    """Return the report of a data set from the counts of its rows."""
    from crystallm.crystallography import elements
    from crystallm.language import get_language

    vocabulary = () if language == "none" else get_language(language).vocabulary()
    unused = [token for i, token in enumerate(vocabulary) if not counts.used[i]]
    steps = {step: counts.steps[step] for step in ORDER if counts.steps[step]}
    duplicates = steps.pop(STEPS[RowStatus.DUPLICATE], 0)
    return PreparationReport(
        language=language,
        read=counts.read,
        crystals=dict(zip(SPLITS, crystals, strict=True)),
        tokens=dict(zip(SPLITS, tokens, strict=True)),
        rejected=steps,
        duplicates=duplicates,
        reasons=dict(sorted(counts.reasons.items(), key=lambda item: (-item[1], item[0]))[:20]),
        unreadable_known=unreadable_known,
        elements={s: counts.elements[s] for s in elements.symbols() if counts.elements[s]},
        space_groups=dict(sorted(counts.groups.items())),
        lengths=_percentiles(counts.lengths),
        unused_tokens=tuple(unused[:200]),
        n_unused=len(unused),
        vocab_size=len(vocabulary),
    )


def _percentiles(lengths: Counter[int]) -> tuple[int, ...]:
    if not lengths:
        return ()
    values = sorted(lengths)
    below = np.cumsum([lengths[value] for value in values])
    places = [max(1, round(share / 100 * int(below[-1]))) for share in (0, 10, 50, 90, 99, 100)]
    return tuple(values[int(np.searchsorted(below, place))] for place in places)


def html(
    report: PreparationReport, options: PrepareOptions, inputs: Sequence[str], lengths: Counter[int]
) -> str:
    """Return the report as an HTML page.

    Args:
        lengths: number of crystals by number of tokens.
    """
    from crystallm.crystallography import space_groups
    from crystallm.visualization import charts
    from crystallm.visualization.html_report import HtmlReport

    page = HtmlReport(f"{report.written:,} crystals prepared")
    page.paragraph("From " + ", ".join(Path(name).name for name in inputs) + ".")
    page.heading("What became of every row")
    lines: list[tuple[str, int]] = [("read", report.read)]
    lines += [(f"rejected: {step}", n) for step, n in report.rejected.items()]
    lines += [("duplicates", report.duplicates), ("written", report.written)]
    page.table(("step", "rows"), lines)
    if report.unreadable_known:
        n = report.unreadable_known
        page.paragraph(f"{n:,} excluded entries could not be read: only their ids count.")
    page.table(
        ("split", "crystals", "tokens", "tokens a crystal"),
        [
            (split, n, report.tokens[split], report.tokens[split] / n if n else 0.0)
            for split, n in report.crystals.items()
        ],
    )
    if report.augmentations:
        page.paragraph(
            f"{report.augmentations:,} equivalent descriptions of training crystals, {report.different:,} of "
            "them different from the canonical one."
        )
    if report.reasons:
        page.heading("Why rows were rejected")
        page.table(("reason", "rows"), list(report.reasons.items()))
    page.heading("Contents")
    if report.elements:
        page.picture(charts.periodic_table(report.elements), "Number of crystals with each element")
    if report.space_groups:
        names = {space_groups.get(number).symbol: n for number, n in report.space_groups.items()}
        page.picture(charts.bars(names, label="crystals"), "Space groups")
    if lengths:
        spread = {"all": np.repeat(list(lengths), list(lengths.values())).tolist()}
        page.picture(charts.histogram(spread, label="tokens of a crystal"), "Lengths")
        percentiles = ("shortest", "10 %", "median", "90 %", "99 %", "longest")
        page.table(percentiles, [report.lengths])
    if report.properties:
        page.heading("Properties")
        page.table(
            ("property", "unit", "crystals", "min", "mean", "max"),
            [
                (name, about["unit"], about["n"], *(about.get(key, "") for key in ("min", "mean", "max")))
                for name, about in report.properties.items()
            ],
        )
    if report.vocab_size:
        used = report.vocab_size - report.n_unused
        page.paragraph(f"{used:,} of {report.vocab_size:,} tokens of the vocabulary are used.")
        if report.unused_tokens:
            more = " ..." if report.n_unused > len(report.unused_tokens) else ""
            page.paragraph("Not used: " + " ".join(report.unused_tokens) + more)
    page.heading("Options")
    page.table(("option", "value"), [(name, str(value)) for name, value in options.model_dump().items()])
    return page.html()
