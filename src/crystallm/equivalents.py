"""Each training crystal told in other equivalent ways too, for networks that see their data many times.

A description is canonical among those that the normaliser of its group and shifts along polar axes make
equivalent (see `canonical`); here are the others. Their orbits stand in order, so that the rules hold for
them as well. Knows the language `orbits`, no networks.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crystallm import canonical, dataset, orbits, spacegroups
from crystallm.errors import InputError, TextError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from crystallm.orbits import Description

SPLIT = "equivalents"
"""Split of a data set that holds them: as many of each crystal of `train` in turn."""


def equivalent(crystal: Description, rng: np.random.Generator) -> Description:
    """The crystal told from another origin, perhaps along other axes, drawn at random."""
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


def several(ids: Sequence[int], n: int, rng: np.random.Generator) -> list[list[int]]:
    """So many descriptions of a crystal, drawn at random, equal ones among them where there are few.

    Raises:
        TextError: the ids of no crystal.
    """
    crystal = orbits.from_ids(ids)
    found = []
    for _ in range(n):
        try:
            found.append(orbits.to_ids(equivalent(crystal, rng)))
        except TextError:  # rounded coordinates that fall onto another position
            found.append(list(ids))
    return found


def add(folder: str | Path, n: int, seed: int = 0, progress: Callable[[int], None] | None = None) -> int:
    """Write the split `equivalents` of a data set: n descriptions of each crystal of `train`.

    Args:
        folder: data set in `orbits`.
        n: descriptions of each crystal.
        seed: of what is drawn.
        progress: called with the number of crystals done after each.

    Returns:
        How many differ from the canonical one.

    Raises:
        InputError: no such data set, or one in another language.
    """
    split = dataset.load(folder, "train")
    if split.language != "orbits":
        raise InputError(
            f"{str(folder)!r} is in the language {split.language!r}: only `orbits` has equivalent descriptions"
        )
    n_other = 0
    with dataset.SplitWriter(Path(folder), SPLIT) as writer:
        for i in range(len(split)):
            ids = split.crystal(i).tolist()
            for other in several(ids, n, np.random.default_rng([seed, i])):
                n_other += other != ids
                writer.add(np.array(other, dtype="<u2").tobytes())
            if progress is not None:
                progress(i + 1)
    return n_other
