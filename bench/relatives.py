"""Match rates of known crystals with other elements, for the tables in docs/explanation/results.md.

python bench/relatives.py mp_20/test.csv.gz --library train.parquet --scorer scorer.safetensors --limit 1000

Random entries of a set are requested in several ways: `cell`, the composition of the conventional cell, as
our networks are given; `atoms`, the number of atoms of the primitive cell, as diffusion models are;
`formula`, the reduced formula alone. For each it prints the match rate of the first, the first 5 and 20
candidates with Wilson's interval of 95 %, and the RMSE of the first that matches (the matcher of the papers,
`benchmarks.csp`), of all and of those that pass the SMACT test. Then the calibration: the mean probability
and the share that is right, by probability of the first candidate, and of all 20 together. Nothing is left
out of the library, so name one that holds no entry of the set. `--once` takes one entry of each formula.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crystallm.benchmarks import csp
from crystallm.benchmarks.reference_sets import read_references
from crystallm.benchmarks.sun import share
from crystallm.crystallography import space_groups
from crystallm.errors import CrystallmError
from crystallm.orbits import description
from crystallm.orbits.description import Description
from crystallm.references.library import Library
from crystallm.references.load import load_library
from crystallm.references.lookup import find_analogues
from crystallm.references.scorer import Scorer, default_scorer, load_scorer
from crystallm.validity.composition_tests import passes_smact

N = 20
BINS = (0.1, 0.2, 0.4, 0.6, 0.8, 0.9)


class Outcome(NamedTuple):
    """What became of an entry.

    Attributes:
        rank: of the first candidate that matches, from 0; N if none does.
        rms: its distance; NaN if none matches.
        smact: whether the composition passes the SMACT test.
        first: probability of the first candidate; 0 if there is none.
        total: sum of the probabilities of the first N.
    """

    rank: int = N
    rms: float = math.nan
    smact: bool = False
    first: float = 0.0
    total: float = 0.0


def outcomes(known: Library, structure: Any, ways: list[str], scorer: Scorer) -> dict[str, Outcome]:
    """Return what becomes of an entry, by way."""
    described = description.describe(structure)
    counts = dict(described.composition)
    n_centrings = space_groups.get(described.space_group).n_centrings
    given = {
        "cell": {"z": math.gcd(*counts.values())},
        "atoms": {"primitive_atoms": sum(counts.values()) // n_centrings},
        "formula": {},
    }
    truth = csp.symmetrize(structure)
    smact = passes_smact(tuple(sorted(structure.composition.get_el_amt_dict().items())))
    distances: dict[Any, float | None] = {}

    def distance(made: Description) -> float | None:
        if made not in distances:
            candidate = description.to_structure(made)
            distances[made] = csp.compare(truth, candidate, composition_test=False)[0]
        return distances[made]

    result = {}
    for way in ways:
        found = find_analogues(known, counts, N, scorer=scorer, **given[way])
        matching = ((i, rms) for i, one in enumerate(found) if (rms := distance(one.description)) is not None)
        probabilities = [one.probability for one in found]
        result[way] = Outcome(
            *next(matching, (N, math.nan)), bool(smact), max(probabilities, default=0.0), sum(probabilities)
        )
    return result


def line(way: str, found: list[Outcome]) -> str:
    """Describe the match rates of a way."""
    text = [f"{way}, {len(found)} entries"]
    for name, strict in (("all", False), ("SMACT", True)):
        for k in (1, 5, N):
            hits = [one for one in found if one.rank < k and (one.smact or not strict)]
            rms = f" / {np.mean([one.rms for one in hits]):.3f}" if hits else ""
            rate = share(len(hits), len(found))
            interval = f"({100 * rate.low:.1f} to {100 * rate.high:.1f})"
            text.append(f"{name} @{k} {100 * rate.share:.1f} {interval}{rms}")
    return "; ".join(text)


def calibration(found: list[Outcome]) -> str:
    """Describe how probable answers were, and how often they were right."""
    text = []
    for name, stated, right in (
        ("first", [one.first for one in found], [one.rank == 0 for one in found]),
        (f"any of {N}", [one.total for one in found], [one.rank < N for one in found]),
    ):
        values, hits = np.array(stated), np.array(right)
        bins = np.digitize(values, BINS)
        cells = [
            f"{values[bins == i].mean():.2f} / {hits[bins == i].mean():.2f} ({(bins == i).sum()})"
            for i in range(len(BINS) + 1)
            if (bins == i).any()
        ]
        text.append(f"  {name}, probability / right (n): {', '.join(cells)}")
    return "\n".join(text)


def main() -> None:
    """Print the lines of each way, after every hundred entries."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("references")
    parser.add_argument("--library", default=None)
    parser.add_argument("--scorer", type=Path, default=None)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--max-atoms", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--given", default="cell,atoms,formula")
    parser.add_argument("--once", action="store_true")
    options = parser.parse_args()
    ways = options.given.split(",")
    known = replace(load_library([options.library] if options.library else []), holds_answers=False)
    scorer = default_scorer() if options.scorer is None else load_scorer(options.scorer)
    entries = [one for one in read_references(options.references) if len(one.structure) <= options.max_atoms]
    order = np.random.default_rng(options.seed).permutation(len(entries)).tolist()
    if options.once:
        order = list({entries[i].structure.composition.reduced_formula: i for i in reversed(order)}.values())[
            ::-1
        ]
    found: dict[str, list[Outcome]] = {way: [] for way in ways}

    def report() -> None:
        for way in ways:
            print(line(way, found[way]), calibration(found[way]), sep="\n", flush=True)

    for n, i in enumerate(order[: options.limit], 1):
        try:
            one = outcomes(known, entries[i].structure, ways, scorer)
        except CrystallmError:  # no symmetry, or an element without a token
            one = dict.fromkeys(ways, Outcome())
        for way in ways:
            found[way].append(one[way])
        if n % 100 == 0:
            report()
    if len(found[ways[0]]) % 100:
        report()


if __name__ == "__main__":
    main()
