"""Random walks through the rules of a language: uniform choice among the allowed tokens.

    python bench/grammar_walks.py --walks 10000 --seed 0 --language cif

Goes round the space groups, 227 in the published language and 230 in ours. Half of the compositions are those
of the published texts that the group can hold, half are made of random orbits of the group, positions without
free coordinates taken often. Each walk must end in a text whose structure has that composition, group and
those multiplicities, no two atoms on one point. Prints what failed, and the microseconds that the rules take
for a token and for a choice (a token with more than one allowed), all of a walk's work counted, tables of its
group too.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crystallm.cif import parser as cif_parser
from crystallm.cif import standard_structure, tokenizer, writer
from crystallm.crystallography import elements, space_groups, wyckoff_assignment
from crystallm.errors import CrystallmError
from crystallm.grammar.cif.state import RETRIES as CIF_RETRIES
from crystallm.grammar.cif.state import CifGrammar
from crystallm.grammar.orbits.state import RETRIES as ORBITS_RETRIES
from crystallm.grammar.orbits.state import OrbitsGrammar
from crystallm.orbits.language import OrbitsLanguage

if TYPE_CHECKING:
    from collections.abc import Sequence

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "texts.jsonl.gz"


def published() -> list[dict[str, int]]:
    """The different compositions of the published texts."""
    with gzip.open(GOLDEN, "rt", encoding="utf-8") as file:
        heads = {cif_parser.parse(json.loads(line)["text"]).composition for line in file}
    return [dict(head) for head in sorted(heads)]


def from_orbits(rng: random.Random, group: space_groups.SpaceGroup, most: int = 120) -> dict[str, int]:
    """A composition that the group can hold, made of random orbits."""
    fixed = [w.multiplicity for w in group.wyckoff if not w.free]
    free = [w.multiplicity for w in group.wyckoff if w.free]
    rng.shuffle(fixed)
    counts: dict[str, int] = {}
    for symbol in rng.sample(elements.symbols(), rng.randint(1, 4)):
        for _ in range(rng.randint(1, 4)):
            multiplicity = fixed.pop() if fixed and rng.random() < 0.6 else rng.choice(free)
            if not counts or sum(counts.values()) + multiplicity <= most:
                counts[symbol] = counts.get(symbol, 0) + multiplicity
    return counts


def fault(text: str, counts: dict[str, int], number: int) -> str:
    """What is wrong with a text that should be a crystal of this composition and group; empty if nothing."""
    if not text.endswith("1.0\n\n"):
        return "has no end"
    try:
        parsed = cif_parser.parse(text)
        structure = standard_structure.to_structure(
            text
        )  # fails where a row's orbit has not the multiplicity printed
    except CrystallmError as error:
        return str(error)
    if not dict(parsed.composition) == counts == dict(parsed.formula_sum or ()):
        return f"is of {parsed.composition}"
    if not parsed.space_group_number == parsed.printed_number == number:
        return f"is in {parsed.space_group}, {parsed.printed_number}"
    found: dict[str, int] = {}
    for row in parsed.rows:
        found[row.symbol] = found.get(row.symbol, 0) + row.multiplicity
    if found != counts or {str(k): int(v) for k, v in structure.composition.items()} != counts:
        return f"has rows of {found}"
    points = np.asarray(structure.frac_coords)
    off = points[:, None] - points[None]
    apart = np.abs(off - np.rint(off)).max(axis=-1) + np.eye(len(points))
    return "has two atoms on one point" if apart.min() <= 1e-4 else ""


def walk(
    rules: CifGrammar | OrbitsGrammar, rng: random.Random, policy: str = "uniform"
) -> tuple[list[int], int, float]:
    """Tokens, number of choices (those taken back too), and seconds that the rules took.

    Args:
        rules: of the walk.
        rng: of the choices.
        policy: `uniform`, or always the `first` or the `last` of the allowed tokens, which leads to the
            edges of what can be: rows at the end of their order, coordinates next to special ones.
    """
    ids: list[int] = []
    n_choices, spent = 0, 0.0
    start = time.process_time()
    state = rules.start([])
    options: Sequence[int] = state.allowed()
    spent += time.process_time() - start
    while options:
        places = {"uniform": int(rng.random() * len(options)), "first": 0, "last": -1}
        token = options[places[policy]]
        n_choices += len(options) > 1
        ids.append(token)
        start = time.process_time()
        back = state.advance(token)
        options = state.allowed()
        spent += time.process_time() - start
        del ids[len(ids) - back :]
    return ids, n_choices, spent


def main() -> None:
    """Run the walks and print what they show."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--walks", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--language", choices=("cif", "orbits"), default="cif")
    parser.add_argument("--policy", choices=("uniform", "first", "last"), default="uniform")
    parser.add_argument("--apart", action="store_true", help="rewrite atoms that stand too close")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    ours = options.language == "orbits"
    symbols = space_groups.symbols() if ours else tokenizer.space_groups()
    groups = [space_groups.get(symbol) for symbol in symbols]
    compositions = [c for c in published() if sum(c.values()) <= 120]
    n_tokens = n_choices = n_failed = 0
    spent = 0.0
    most = ORBITS_RETRIES if ours else CIF_RETRIES
    rewrites = most if options.apart else (0,) * len(most)
    for i in range(options.walks):
        group = groups[i % len(groups)]
        fitting = [
            c for c in rng.sample(compositions, 60) if wyckoff_assignment.can_hold(group.number, c.values())
        ]
        counts = rng.choice(fitting) if fitting and rng.random() < 0.5 else from_orbits(rng, group)
        if writer.formula_unit(counts)[1] < 1:
            continue
        kind = OrbitsGrammar if ours else CifGrammar
        ids, choices, seconds = walk(kind("full", counts, group.number, rewrites), rng, options.policy)
        text = OrbitsLanguage().standard_text(ids) if ours else tokenizer.decode(ids)
        if wrong := fault(text, counts, group.number):
            n_failed += 1
            print(f"walk {i}: {group.symbol} {counts}: {wrong}")
            print(text.partition("_atom_site_occupancy")[2])
        n_tokens, n_choices, spent = n_tokens + len(ids), n_choices + choices, spent + seconds
    print(f"{options.walks} walks, {n_failed} failed, {n_tokens} tokens, {n_choices} choices")
    print(f"{1e6 * spent / n_tokens:.1f} µs a token, {1e6 * spent / n_choices:.1f} µs a choice")


if __name__ == "__main__":
    main()
