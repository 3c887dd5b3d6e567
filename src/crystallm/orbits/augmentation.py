"""Equivalent descriptions of a crystal, for training.

`orbits.canonical` chooses one of the descriptions that the normaliser of the group and shifts along polar
axes make equivalent; here are the others. Their orbits are sorted too, so they follow the same grammar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from crystallm.crystallography import space_groups
from crystallm.errors import TextError
from crystallm.orbits import canonical, description, language
from crystallm.orbits.description import Description


def equivalent(crystal: Description, rng: np.random.Generator) -> Description:
    """Describe the crystal from another origin, perhaps along other axes, drawn at random.

    Each point x of an orbit becomes W x + s + t, (W, s) of the proper part of the normaliser, which keeps
    cell and handedness, t along polar axes.

    Raises:
        TextError: rounded to thousandths, an orbit falls onto a position of lower multiplicity.
    """
    group = space_groups.get(crystal.space_group)
    maps = group.letter_maps
    coset = rng.integers(len(maps))
    shift = np.zeros(3)
    shift[list(group.polar)] = rng.random(len(group.polar))
    w, s = (part[coset] for part in group.normaliser)
    ranks = {symbol: rank for rank, (symbol, _) in enumerate(crystal.composition)}
    items = []
    for orbit in crystal.orbits:
        position = group.by_label[orbit.label]
        point = w @ position.point([value / description.STEPS for value in orbit.coordinates]) + s + shift
        index = maps[coset][group.wyckoff.index(position)]
        values = canonical.coordinates(group, index, point)
        if not group.is_general(index, [value / description.STEPS for value in values]):
            raise TextError(
                f"{orbit.element} on {orbit.label} is too close to a position of lower multiplicity"
            )
        items.append((ranks[orbit.element], index, values))
    symbols = list(ranks)
    return replace(
        crystal,
        orbits=tuple(
            description.Orbit(symbols[r], group.wyckoff[i].label, values) for r, i, values in sorted(items)
        ),
    )


def augmentations(ids: Sequence[int], n: int, *, seed: int, number: int) -> list[list[int]]:
    """Return n descriptions of a crystal, drawn at random; some are equal where there are few.

    Args:
        number: of the crystal in its data set, part of the seed.

    Raises:
        TextError: the ids describe no crystal.
    """
    crystal = language.from_ids(ids)
    rng = np.random.default_rng([seed, number])
    sequences = []
    for _ in range(n):
        try:
            sequences.append(language.to_ids(equivalent(crystal, rng)))
        except TextError:  # the canonical one is as good
            sequences.append(list(ids))
    return sequences
