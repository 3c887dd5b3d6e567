"""Write the distances and volumes of known crystals to `src/crystallm/geometry/data/distances.json`.

    python scripts/make_distances.py CORPUS

CORPUS is a Parquet file with the columns cif and split. Counts the train split as the module
`crystallm.geometry.distances` says, and prints the share of crystals of each split that its bounds refuse.
Takes some ten minutes for 176,000 crystals.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pyarrow import parquet

from crystallm.cif import structure_reader
from crystallm.crystallography import elements
from crystallm.errors import CrystallmError
from crystallm.geometry import bonds, distances

OUT = Path(__file__).parent.parent / "src/crystallm/geometry/data/distances.json"
RADIUS = 5.5  # Å
GAP_RADIUS = 3.8  # Å
EVERY = 3  # crystals of which one is searched for gaps


class Counted(NamedTuple):
    """Distances and volume of a crystal.

    Attributes:
        shortest: shortest distance by pair (sorted).
        short: all distances up to GAP_RADIUS by pair, ascending, to hundredths.
        nearest: largest distance to a nearest neighbor.
        volume: V / V0.
    """

    shortest: dict[tuple[str, str], float]
    short: dict[tuple[str, str], list[float]]
    nearest: dict[str, float]
    volume: float


def main() -> None:
    """Count, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus", type=Path)
    args = parser.parse_args()
    splits: dict[str, list[Counted]] = defaultdict(list)
    for row in parquet.read_table(args.corpus, columns=["cif", "split"]).to_pylist():
        splits[row["split"]].append(count(row["cif"]))
    table = bounds(splits["train"])
    write(table)
    for split, crystals in splits.items():
        told = {name: f"{share:.2%}" for name, share in refused(crystals, table).items()}
        print(f"{split}: {len(crystals)} crystals, refused {told}")


def count(cif: str) -> Counted:
    """Count a crystal."""
    structure = structure_reader.structure(cif)
    symbols = [site.specie.symbol for site in structure]
    first, second, lengths = distances.pairs_within(structure.lattice.matrix, structure.frac_coords, RADIUS)
    shortest: dict[tuple[str, str], float] = {}
    short: dict[tuple[str, str], set[float]] = defaultdict(set)
    nearest = np.full(len(symbols), RADIUS)
    np.minimum.at(nearest, first, lengths)
    for i, j, length in zip(first.tolist(), second.tolist(), lengths.tolist(), strict=True):
        one, other = sorted((symbols[i], symbols[j]))
        shortest[one, other] = min(length, shortest.get((one, other), RADIUS))
        if length <= GAP_RADIUS:
            short[one, other].add(round(length, 2))
    farthest: dict[str, float] = {}
    for symbol, length in zip(symbols, nearest.tolist(), strict=True):
        farthest[symbol] = max(length, farthest.get(symbol, 0.0))
    by_pair = {pair: sorted(lengths) for pair, lengths in short.items()}
    volume = structure.volume / sum(elements.get(s).volume for s in symbols)
    return Counted(shortest, by_pair, farthest, volume)


def bounds(crystals: list[Counted]) -> dict[str, Any]:
    """Return the bounds of `distances.KnownDistances` from the crystals to learn from."""
    pairs: dict[tuple[str, str], list[float]] = defaultdict(list)
    nearest: dict[str, list[float]] = defaultdict(list)
    for crystal in crystals:
        for pair, length in crystal.shortest.items():
            pairs[pair].append(length)
        for symbol, length in crystal.nearest.items():
            nearest[symbol].append(length)
    least: dict[str, dict[str, float]] = defaultdict(dict)
    for (one, other), lengths in sorted(pairs.items()):
        if len(lengths) >= distances.FEW:
            least[one][other] = low(lengths, distances.CLOSE, margin=True)
    volumes = [crystal.volume for crystal in crystals]
    return {
        "volumes": [low(volumes, distances.FAR), high(volumes, distances.FAR)],
        "farthest": {
            symbol: high(nearest[symbol] or [RADIUS], distances.FAR, margin=True)
            for symbol in elements.symbols()
        },
        "least": least,
        "gaps": gaps([crystal.short for crystal in crystals[::EVERY]], least),
    }


def gaps(
    crystals: list[dict[tuple[str, str], list[float]]], least: dict[str, dict[str, float]]
) -> dict[str, dict[str, tuple[float, float]]]:
    """Return g and h of `distances` by pair, from the distances of crystals up to GAP_RADIUS, ascending."""
    starts: dict[tuple[str, str], float] = {}
    beyond: dict[tuple[str, str], list[float]] = defaultdict(list)
    for crystal in crystals:
        for pair, lengths in crystal.items():
            if pair not in starts:
                starts[pair] = max(longest_bond(*pair), least.get(pair[0], {}).get(pair[1], 0.0))
            beyond[pair].append(next((x for x in lengths if x > starts[pair]), GAP_RADIUS))
    found: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    for (one, other), lengths in sorted(beyond.items()):
        start = float(np.ceil(round(100 * starts[one, other], 6)) / 100)
        if len(lengths) >= distances.FEW:
            end = low(lengths, distances.BETWEEN, margin=True)
            if start < end:
                found[one][other] = start, end
    return found


def longest_bond(one: str, other: str) -> float:
    """Return the longest bond of reasonable length, Å; infinity where it is not known."""
    try:
        return bonds.reasonable_lengths(one, other)[1]
    except CrystallmError:
        return inf


def low(values: Sequence[float], share: float, *, margin: bool = False) -> float:
    """Return the quantile from below, less the margin of few values, rounded down to hundredths."""
    n = len(values)
    bound = float(np.sort(values)[int(share * n)]) * (1 - margin / n**0.5)
    return float(np.floor(100 * bound) / 100)


def high(values: Sequence[float], share: float, *, margin: bool = False) -> float:
    """Return the quantile from above, and the margin of few values, rounded up to hundredths."""
    n = len(values)
    bound = float(np.sort(values)[-1 - int(share * n)]) * (1 + margin / n**0.5)
    return float(np.ceil(100 * bound) / 100)


def refused(crystals: list[Counted], table: dict[str, Any]) -> dict[str, float]:
    """Return the share of crystals that each bound, and any of them, refuses."""
    found: dict[str, list[bool]] = defaultdict(list)
    for crystal in crystals:
        close = any(
            length < table["least"].get(one, {}).get(other, 0.0)
            for (one, other), length in crystal.shortest.items()
        )
        lone = any(length > table["farthest"][symbol] for symbol, length in crystal.nearest.items())
        volume = not table["volumes"][0] <= crystal.volume <= table["volumes"][1]
        for name, value in (("distance", close), ("neighbors", lone), ("volume", volume)):
            found[name].append(value)
        found["any"].append(close or lone or volume)
    return {name: sum(values) / len(values) for name, values in found.items()}


def write(table: dict[str, Any]) -> None:
    """Write the table, a line for each element."""
    lines = [f'"volumes": {json.dumps(table["volumes"])}', f'"farthest": {json.dumps(table["farthest"])}']
    for name in ("least", "gaps"):
        rows = ",\n  ".join(f'"{symbol}": {json.dumps(row)}' for symbol, row in sorted(table[name].items()))
        lines.append(f'"{name}": {{\n  {rows}\n}}')
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text("{" + ",\n".join(lines) + "}\n", encoding="ascii")


if __name__ == "__main__":
    main()
