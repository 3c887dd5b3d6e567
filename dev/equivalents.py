"""Trial: each training crystal told in other equivalent ways too, beside its canonical description.

    python dev/equivalents.py DATASET OUT --copies 4

Elements of the normaliser and shifts along polar axes are drawn at random; orbits stay in order, so that the
rules hold. DATASET was prepared in `orbits`; OUT gets the same splits, the training crystals with copies.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from crystallm import canonical, dataset, orbits, spacegroups
from crystallm.errors import TextError


def equivalent(crystal: orbits.Description, rng: np.random.Generator) -> orbits.Description:
    """The crystal told from another origin, perhaps along other axes."""
    group = spacegroups.get(crystal.space_group)
    maps = canonical.letter_maps(group.number)
    coset = rng.integers(len(maps))
    shift = np.zeros(3)
    shift[list(group.polar)] = rng.random(len(group.polar))
    w, s = (part[coset] for part in group.normaliser)
    ranks = {symbol: rank for rank, (symbol, _) in enumerate(crystal.composition)}
    items = []
    for orbit in crystal.orbits:
        position = group.by_label[orbit.label]
        point = w @ position.point([value / orbits.STEPS for value in orbit.coordinates]) + s + shift
        index = maps[coset][group.wyckoff.index(position)]
        items.append((ranks[orbit.element], index, canonical.coordinates(group, index, point)))
    symbols = list(ranks)
    told = tuple(orbits.Orbit(symbols[r], group.wyckoff[i].label, values) for r, i, values in sorted(items))
    return replace(crystal, orbits=told)


def main() -> None:
    """Tell and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--copies", type=int, default=4)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    args.out.mkdir(parents=True)
    n_other = 0
    for name in ("train", "val"):
        split = dataset.load(args.data, name)
        with dataset.SplitWriter(args.out, name) as writer:
            for i in range(len(split)):
                ids = split.crystal(i).tolist()
                writer.add(np.array(ids, dtype="<u2").tobytes())
                for _ in range(args.copies if name == "train" else 0):
                    try:
                        other = orbits.to_ids(equivalent(orbits.from_ids(ids), rng))
                    except TextError:
                        continue
                    n_other += other != ids
                    writer.add(np.array(other, dtype="<u2").tobytes())
            print(f"{name}: {writer.n_crystals} crystals, {writer.n_tokens} tokens, {n_other} told otherwise")
    facts = dataset.facts(args.data)
    (args.out / dataset.FACTS).write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
