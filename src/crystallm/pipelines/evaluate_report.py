"""The tables, notes and HTML report of an evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystallm.storage import files
from crystallm.visualization import charts
from crystallm.visualization.html_report import HtmlReport

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from crystallm.benchmarks.sun import Spread, Sun
    from crystallm.pipelines.evaluate import EvaluationResult

CHECKS = {
    "readable": "a CIF can be read",
    "sensible": "sensible cell",
    "formula": "formulas agree",
    "multiplicity": "multiplicities add up",
    "space_group": "printed group is found",
    "bonds": "all bonds reasonable",
    "valid": "valid: passes the paper's checks",
    "plausible": "plausible: valid, with distances and volume of known crystals",
}
"""Names of the checks for a reader."""
SHARES = {
    "with_energy": "have an energy",
    "converged": "relaxation converged",
    "placed": "have an energy above the hull",
    "stable": "stable: ≤ 0 eV/atom above the hull",
    "metastable": "metastable: ≤ {bound:g} eV/atom",
    "unique": "unique",
    "novel": "novel",
    "sun": "S.U.N.: stable, unique, novel",
    "msun": "M.S.U.N.: metastable, unique, novel",
}
SHARE_HEADS = ("energies and novelty", "crystals", "%", "95 %")
SPREADS = {
    "e_above_hull": ("energy above the hull, eV/atom", 3),
    "rmsd": ("displacement by relaxation (RMSD), Å", 3),
}
"""Names for a reader, and digits."""
SPREAD_HEADS = ("over those that have one", "crystals", "median", "95 %", "mean", "95 %")


def share_lines(sun: Sun) -> list[tuple[str, ...]]:
    """Return the cells of a table with SHARE_HEADS."""
    return [
        (
            SHARES[name].format(bound=sun.bound),
            f"{share.count:,}",
            f"{100 * share.share:.1f}",
            f"{100 * share.low:.1f} to {100 * share.high:.1f}",
        )
        for name, share in sun.shares.items()
    ]


def spread_lines(sun: Sun) -> list[tuple[str, ...]]:
    """Return the cells of a table with SPREAD_HEADS."""
    spreads = {name: getattr(sun, name) for name in SPREADS}
    return [_spread_line(name, spread) for name, spread in spreads.items() if spread is not None]


def _spread_line(name: str, spread: Spread) -> tuple[str, ...]:
    title, digits = SPREADS[name]
    cells = [title, f"{spread.n:,}"]
    for value, interval in (
        (spread.median, spread.median_interval),
        (spread.mean, spread.mean_interval),
    ):
        cells.append(f"{value:.{digits}f}" if spread.n else "-")
        cells.append(" to ".join(f"{end:.{digits}f}" for end in interval) if spread.n else "-")
    return tuple(cells)


def notes(result: EvaluationResult) -> list[str]:
    """Return the lines below the tables of energies and comparisons."""
    lines, counts = [], result.counts
    if counts:
        compared = f"{counts['n_compared']:,} of them of a generated formula"
        lines.append(f"novel: against {counts['n_known']:,} known crystals, {compared}")
        if counts["n_unreadable"]:
            lines.append(f"{counts['n_unreadable']:,} known crystals could not be read or compared")
    if result.unverified_hull:
        lines.append(
            f"{result.options.hull!r} does not say whether its energies are of {result.options.energy} by "
            "the same method: if not, energies above the hull mean nothing"
        )
    reasons = {} if result.sun is None else result.sun.reasons
    return lines + [f"  {n:,}  {reason}" for reason, n in reasons.items()]


def write(result: EvaluationResult, folder: Path) -> None:
    """Write the totals and the report of an evaluation into its folder."""
    files.write_json(folder / "summary.json", result.record())
    files.write_atomically(folder / "report.html", html(result).encode())


def html(result: EvaluationResult) -> str:
    """Return the report of an evaluation as an HTML page."""
    summary = result.validity
    page = HtmlReport(f"{result.name}: {summary.n:,} crystals evaluated")
    page.table(
        ("check", "crystals", "%"),
        [(CHECKS[check], n, round(100 * n / summary.n, 2)) for check, n in summary.counts.items()],
    )
    page.paragraph(
        f"{summary.as_printed:,} were checked as their text prints them; the others, printed by other "
        "programs, were symmetrized first (0.1 Å)."
    )
    if summary.mean_bond_score is not None:
        page.paragraph(f"Mean bond score: {summary.mean_bond_score:.4f}.")
    if result.sun is not None:
        _add_sun(page, result, result.sun)
    if summary.reasons:
        page.heading("What is wrong")
        page.table(("reason", "crystals"), list(summary.reasons.items()))
    _add_pictures(page, result.rows)
    wrong = [row for row in result.rows if not row["plausible"]]
    if wrong:
        page.heading(f"The first {min(50, len(wrong))} of {len(wrong):,} that are not plausible")
        page.table(
            ("id", "cell", "reasons"),
            [(row["id"], row["cell_formula"] or "-", row["reasons"]) for row in wrong[:50]],
        )
    return page.html()


def _add_sun(page: HtmlReport, result: EvaluationResult, sun: Sun) -> None:
    page.heading("Energies and novelty")
    page.table(SHARE_HEADS, share_lines(sun))
    if spreads := spread_lines(sun):
        page.table(SPREAD_HEADS, spreads)
    for note in notes(result):
        page.paragraph(note)
    above = _values(result.rows, "e_above_hull")
    if above:
        label = "energy above the hull, eV/atom"
        page.picture(charts.histogram({"all": above}, label=label), label.capitalize())


def _add_pictures(page: HtmlReport, rows: Sequence[Mapping[str, Any]]) -> None:
    page.heading("Distributions")
    volumes = {
        name: _values([row for row in rows if bool(row["plausible"]) == plausible], "volume_per_atom")
        for name, plausible in (("plausible", True), ("not plausible", False))
    }
    page.picture(charts.histogram(volumes, label="volume per atom, Å³"), "Volume per atom")
    page.picture(
        charts.histogram({"all": _values(rows, "bond_score")}, label="bond score", limits=(0, 1)),
        "Bond score: share of bonds of a reasonable length",
    )
    lengths = [value for name in "abc" for value in _values(rows, name)]
    page.picture(charts.histogram({"all": lengths}, label="cell length, Å"), "Cell lengths a, b and c")
    counts: dict[str, list[int]] = {}
    for row in rows:
        for k, column in enumerate(("printed_group", "found_group")):
            if row[column] is not None:
                counts.setdefault(row[column], [0, 0])[k] += 1
    pairs = {group: (pair[0], pair[1]) for group, pair in counts.items()}
    page.picture(charts.paired_bars(pairs, labels=("printed", "found")), "Space groups printed and found")


def _values(rows: Sequence[Mapping[str, Any]], column: str) -> list[float]:
    return [row[column] for row in rows if row[column] is not None]
