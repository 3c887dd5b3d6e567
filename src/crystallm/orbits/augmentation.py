"""Crystals told in other equivalent ways, for networks that see their data many times.

A description is canonical among those that the normaliser of its group and shifts along polar axes make
equivalent (see `canonical`); here are the others. Their orbits stand in order, so that the rules hold for
them as well. Knows the language `orbits`; refuses to know files and networks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from crystallm.crystallography import space_groups
from crystallm.errors import TextError
from crystallm.orbits import canonical, description, language

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.orbits.description import Description


def equivalent(crystal: Description, rng: np.random.Generator) -> Description:
    """The crystal told from another origin, perhaps along other axes, drawn at random.

    Each point x of an orbit becomes W x + s + t, (W, s) of the proper part of the normaliser, which keeps
    cell and handedness, t along polar axes.

    Raises:
        TextError: rounded to thousandths, an orbit falls onto a position of lower multiplicity.
    """
    group = space_groups.get(crystal.space_group)
    maps = canonical.letter_maps(group.number)
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
        told = group.wyckoff[index].point([value / description.STEPS for value in values])
        if len(group.orbit(told)) != position.multiplicity:
            raise TextError(
                f"{orbit.element} on {orbit.label} lies too close to a position of lower multiplicity"
            )
        items.append((ranks[orbit.element], index, values))
    symbols = list(ranks)
    return replace(
        crystal,
        orbits=tuple(
            description.Orbit(symbols[r], group.wyckoff[i].label, values) for r, i, values in sorted(items)
        ),
    )


def several(ids: Sequence[int], n: int, *, seed: int, number: int) -> list[list[int]]:
    """So many descriptions of a crystal, drawn at random, equal ones among them where there are few.

    Args:
        ids: the canonical description.
        n: descriptions.
        seed: of what is drawn.
        number: of the crystal in its data set; with the seed it decides all.

    Raises:
        TextError: the ids of no crystal.
    """
    crystal = language.from_ids(ids)
    rng = np.random.default_rng([seed, number])
    found = []
    for _ in range(n):
        try:
            found.append(language.to_ids(equivalent(crystal, rng)))
        except TextError:  # the canonical one is as good
            found.append(list(ids))
    return found
