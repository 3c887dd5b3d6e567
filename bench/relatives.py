"""Match rates of known crystals with other elements, for the tables in docs/explanation/results.md.

python bench/relatives.py mp_20/test.csv.gz --library train.parquet --scorer scorer.safetensors --limit 1000

Random entries of a set are requested in several ways: `cell`, the composition of the conventional cell, as
our networks are given; `atoms`, the number of atoms of the primitive cell, as diffusion models are;
`formula`, the reduced formula alone. For each it prints the match rate of the first, the first 5 and 20
candidates, and the RMSE of the first that matches (the matcher of the papers, `benchmarks.csp`), of all and
of those that pass the SMACT test. Nothing is left out of the library, so name one that holds no entry of
the set.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crystallm.benchmarks import csp
from crystallm.benchmarks.reference_sets import read_references
from crystallm.crystallography import space_groups
from crystallm.errors import CrystallmError
from crystallm.orbits import description
from crystallm.references.library import Library
from crystallm.references.load import load_library
from crystallm.references.lookup import find_analogues
from crystallm.references.scorer import Scorer, default_scorer, load_scorer

N = 20


def first_match(
    known: Library, structure: Any, ways: list[str], scorer: Scorer
) -> dict[str, tuple[int, float, bool] | None]:
    """Return index and rms distance of the first candidate that matches, and the SMACT test, by way."""
    described = description.describe(structure)
    counts = dict(described.composition)
    n_centrings = space_groups.get(described.space_group).n_centrings
    given = {
        "cell": {"z": math.gcd(*counts.values())},
        "atoms": {"primitive_atoms": sum(counts.values()) // n_centrings},
        "formula": {},
    }
    truth = csp.symmetrize(structure)
    smact = csp.passes_smact(tuple(sorted(structure.composition.get_el_amt_dict().items())))
    distances: dict[Any, float | None] = {}
    result: dict[str, tuple[int, float, bool] | None] = dict.fromkeys(ways)
    for way in ways:
        for i, analogue in enumerate(find_analogues(known, counts, N, scorer=scorer, **given[way])):
            made = analogue.description
            if made not in distances:
                candidate = description.to_structure(made)
                distances[made] = csp.compare(truth, candidate, composition_test=False)[0]
            rms = distances[made]
            if rms is not None:
                result[way] = (i, rms, bool(smact))
                break
    return result


def line(way: str, found: list[dict[str, tuple[int, float, bool] | None]]) -> str:
    """Describe the match rates of a way."""
    text = [f"{way}, {len(found)} entries"]
    for name, strict in (("all", False), ("SMACT", True)):
        for k in (1, 5, N):
            hits = [hit for one in found if (hit := one[way]) and hit[0] < k and (hit[2] or not strict)]
            rms = f" / {np.mean([hit[1] for hit in hits]):.3f}" if hits else ""
            text.append(f"{name} @{k} {100 * len(hits) / len(found):.1f}{rms}")
    return "; ".join(text)


def main() -> None:
    """Print a line for each way, after every hundred entries."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("references")
    parser.add_argument("--library", default=None)
    parser.add_argument("--scorer", type=Path, default=None)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--max-atoms", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--given", default="cell,atoms,formula")
    options = parser.parse_args()
    ways = options.given.split(",")
    known = replace(load_library([options.library] if options.library else []), holds_answers=False)
    scorer = default_scorer() if options.scorer is None else load_scorer(options.scorer)
    entries = [one for one in read_references(options.references) if len(one.structure) <= options.max_atoms]
    found: list[dict[str, tuple[int, float, bool] | None]] = []
    for i in np.random.default_rng(options.seed).permutation(len(entries))[: options.limit].tolist():
        try:
            found.append(first_match(known, entries[i].structure, ways, scorer))
        except CrystallmError:  # no symmetry, or an element without a token
            found.append(dict.fromkeys(ways))
        if len(found) % 100 == 0:
            print(*(line(way, found) for way in ways), sep="\n", flush=True)
    print(*(line(way, found) for way in ways), sep="\n")


if __name__ == "__main__":
    main()
