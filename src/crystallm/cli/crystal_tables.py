"""Tables of crystals on the terminal. Rows are dicts, wherever they come from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crystallm.cli.console import FittingTable, counted, page, plain
from crystallm.crystals.annotation import missing_energies

_REASONS = 10
_REASON = 90
_RELATED = {"formation_energy": "formation", "e_above_hull": "above hull"}
"""Columns of relative energies, eV per atom, and their headings."""
_LEAST = ("log-lik.", "Å³/atom", "formation", "above hull", "cell (Å, degrees)", "Z")
"""Headings of columns that a narrow page leaves out, the first ones first."""
LARGE_CELL = 100
"""Atoms of a cell above which advice is printed if no crystal is plausible."""
UNWRITTEN = "no files: --out FOLDER writes them"
INDEPENDENT = 30
"""Independent atoms up to which crystals are usually valid: docs/grammar.md has the figures."""


def best_first(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return rows in the order of requests; in each by rank, without ranks plausible and likely ones first.

    Log-likelihoods of different requests are not compared: their sequences differ in length.
    """
    return sorted(
        rows,
        key=lambda row: (
            row["request"],
            row.get("formula") is None,
            row.get("rank") or 0,
            not row["plausible"],
            -row["log_likelihood"],
        ),
    )


def print_crystals(rows: Sequence[Mapping[str, Any]], note: str, n_requests: int, limit: int) -> None:
    """Print crystals as a table, best first, equal ones of a request on one line (×4).

    Equal crystals are those of one cluster or, without ranking, with the same text. Z has a column with its
    probability if it was chosen; energies, and the known crystal that one was made of, if there are any.

    Args:
        note: how the request was interpreted, printed above the table if there is one request.
        n_requests: number of requests.
        limit: lines, at most.
    """
    lines: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in best_first(rows):
        cluster = row.get("cluster")
        lines.setdefault((row["request"], row["text"] if cluster is None else cluster), []).append(row)
    title = plain(note) if n_requests == 1 else f"{n_requests} requests"
    with_energy = any(row.get("energy") is not None or row.get("energy_reason") for row in rows)
    more = [name for name in _RELATED if any(row.get(name) is not None for row in rows)]
    with_relatives = any(row.get("relative") is not None for row in rows)
    with_z = any(row.get("z_probability") is not None for row in rows)
    table = FittingTable(None, least=_LEAST)
    table.title = title
    table.add_column("formula", overflow="fold")
    if with_z:
        table.add_column("Z", justify="right", no_wrap=True)
    table.add_column("space group", overflow="fold")
    table.add_column("cell (Å, degrees)", min_width=14)
    table.add_column("Å³/atom", justify="right", no_wrap=True)
    if with_energy:
        table.add_column("eV/atom", justify="right", no_wrap=True)
    for name in more:
        table.add_column(_RELATED[name], justify="right", no_wrap=True)
    table.add_column("log-lik.", justify="right", no_wrap=True)
    if with_relatives:
        table.add_column("prob.", justify="right", no_wrap=True)
        table.add_column("like", overflow="fold")
    table.add_column("plausible, or why not", overflow="fold", min_width=12)
    has_duplicates = any(
        len(equal) > 1 or (equal[0].get("cluster_size") or 1) > 1 for equal in lines.values()
    )
    table.add_column("sample\n×equal" if has_duplicates else "sample", justify="right", no_wrap=True)
    for equal in list(lines.values())[:limit]:
        row = equal[0]
        broken = row.get("formula") is None
        sample = f"{row['request']}.{row['sample']}" if n_requests > 1 else str(row["sample"])
        times = row.get("cluster_size") or len(equal)
        z = "-" if broken else str(row.get("z"))
        if row.get("z_probability") is not None:
            z += f" ({100 * row['z_probability']:.0f} %)"
        table.add_row(
            "-" if broken else row["formula"],
            *([z] if with_z else []),
            "-" if broken else f"{row['space_group']} ({row['space_group_number']})",
            "-" if broken else _cell(row),
            "-" if broken else f"{row['volume_per_atom']:.2f}",
            *([_energy(row)] if with_energy else []),
            *(_energy(row, name) for name in more),
            f"{row['log_likelihood']:.1f}",
            *(_relative(row) if with_relatives else []),
            "[green]plausible[/green]" if row["plausible"] else plain(_shortened(row["reasons"] or "no")),
            sample if times == 1 else f"{sample} ×{times}",
        )
    console = page()
    console.print(table)
    if len(lines) > limit:
        console.print(f"... and {len(lines) - limit} more")
    without = missing_energies((row.get("energy"), row.get("energy_reason")) for row in rows)
    for said in (without, _advice(rows)):
        if said:
            console.print(plain(said), soft_wrap=True, highlight=False)


def _advice(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return advice if cells are too large to be valid; "" otherwise."""
    largest = max((row.get("n_atoms") or 0 for row in rows), default=0)
    if largest < LARGE_CELL or any(row["plausible"] for row in rows):
        return ""
    return (
        f"none is plausible: cells as large as this ({largest} atoms) are plausible only with at most "
        f"about {INDEPENDENT} independent atoms: request fewer formula units, or a group of high symmetry "
        "(--space-group)"
    )


def print_summary(counts: Mapping[str, int], folder: Path | None, *, parted: bool = False) -> None:
    """Print how many crystals there are, how many are plausible or kept, and where they are.

    Args:
        counts: `crystals`, `plausible`, `distinct` and `kept`.
    """
    n, plausible, kept = counts["crystals"], counts["plausible"], counts["kept"]
    where = UNWRITTEN
    if folder is not None:
        tables = folder / ("results" if parted else "results.parquet")
        where = ", ".join(str(path) for path in (tables, folder / "cifs") if path == tables or path.is_dir())
    summary = f"{counted(n, 'crystal')}, {plausible} plausible"
    if kept < n:
        summary += f" ({plausible / n:.0%})"
    if counts["distinct"]:
        summary += f", {counts['distinct']} distinct"
    if kept < n:
        summary += f", {kept} kept"
    page().print(plain(f"{summary}; {where}"), soft_wrap=True, highlight=False)


def print_search(
    rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], folder: Path | None, limit: int
) -> None:
    """Print the crystals and the summary of a search.

    Args:
        folder: with the results; None if they are not stored.
        limit: lines, at most.
    """
    console = page()
    if rows:
        print_crystals(rows, summary["note"], 1, limit)
    else:
        console.print(plain(f"{summary['note']}: no plausible crystal with an energy"))
    for name, part in (("", summary), ("plain sampling: ", summary.get("baseline"))):
        if part is not None:
            console.print(plain(f"{name}{_search_line(part)}"), soft_wrap=True, highlight=False)
    if summary["stopped"]:
        console.print(plain(f"stopped early: {summary['stopped']}"), soft_wrap=True, highlight=False)
    where = UNWRITTEN if folder is None else f"all in {folder}"
    console.print(plain(where), soft_wrap=True, highlight=False)


def _search_line(summary: Mapping[str, Any]) -> str:
    unit = unit_of(summary.get("objective", ["energy"]))
    lowest = "none" if summary["lowest"] is None else f"{summary['lowest']:.4f}{unit}"
    share = summary["plausible"] / max(1, summary["texts"])
    line = (
        f"{counted(summary['simulations'], 'simulation')}, {share:.0%} plausible, "
        f"{summary['energy_calls']} energies, {counted(summary['distinct'], 'distinct crystal')}, "
        f"lowest {lowest}, {summary['seconds']:.1f} s"
    )
    if summary["without_energy"]:
        line += f"; {summary['without_energy']} without an energy, the last because: {summary['why']}"
    return line


def unit_of(objective: Sequence[str]) -> str:
    """Return the unit of the lowest value of a search, with a blank before it; "" for none."""
    return " eV/atom" if list(objective) == ["energy"] else ""


def _relative(row: Mapping[str, Any]) -> tuple[str, str]:
    """Probability of a crystal that was made of a known one; formula, id and distance of that one."""
    if row.get("relative") is None:
        return "-", "-"
    like = f"{row['relative_formula']}, {row['relative']} ({row['relative_distance']:.2f})"
    return f"{math.exp(row['log_likelihood']):.0%}", plain(like)


def _energy(row: Mapping[str, Any], name: str = "energy") -> str:
    return "-" if row.get(name) is None else f"{row[name]:.3f}"


def _cell(row: Mapping[str, Any]) -> str:
    """Return the lengths, and the angles if one is not 90 degrees."""
    lengths = " ".join(f"{row[name]:.2f}" for name in ("a", "b", "c"))
    angles = [row[name] for name in ("alpha", "beta", "gamma")]
    if all(abs(angle - 90) < 0.01 for angle in angles):
        return lengths
    return f"{lengths}, " + " ".join(f"{angle:.4g}" for angle in angles)


def _shortened(reasons: str) -> str:
    """Return the first of several reasons; results.parquet has all."""
    first = reasons.split("; ", maxsplit=1)[0]
    return first if len(first) <= _REASON else f"{first[: _REASON - 3]}..."
