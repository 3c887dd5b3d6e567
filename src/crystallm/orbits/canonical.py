"""The canonical one of all equivalent descriptions of a crystal.

Descriptions are equivalent under the proper part of the Euclidean normaliser of the group and, in polar
groups, under any shift along polar axes. The canonical one has the smallest (elements and letters,
coordinates in thousandths of a cell edge). In a polar group its first orbit is at 0 along the polar axes.
Handedness is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from crystallm.crystallography import space_groups
from crystallm.crystallography.space_groups import Floats, Ints, SpaceGroup
from crystallm.errors import TextError

STEPS = 1000  # of a coordinate in a cell edge
TOLERANCE = 1e-3  # largest distance (fraction) of a symmetrized atom from its Wyckoff position


def find_orbits(group: SpaceGroup, points: Floats) -> Iterator[tuple[int, Floats]]:
    """Yield Wyckoff index and exact representative point of each orbit among atoms of one element."""
    left = points
    while len(left):
        images = group.images(left[0])
        member = (space_groups.apart(left[:, None, :], images) < TOLERANCE).any(axis=1)
        snapped = group.snap(left[0], int(member.sum()), TOLERANCE)
        if snapped is None:
            raise TextError(f"{int(member.sum())} equivalent atoms fit no Wyckoff position of {group.symbol}")
        yield group.wyckoff.index(snapped[0]), snapped[1]
        left = left[~member]


def smallest(
    group: SpaceGroup, items: list[tuple[int, int, Floats]]
) -> list[tuple[int, int, tuple[int, ...]]]:
    """Return the smallest of the equivalent descriptions of orbits (element rank, Wyckoff index, point)."""
    least, leading = _leading(group.number, tuple((rank, index) for rank, index, _ in items))
    if not any(group.wyckoff[index].free for _, index in least):
        return [(*kind, ()) for kind in least]
    points = np.array([point for _, _, point in items])
    described = []  # points [n_items, 3] in the order of `least`, one for each equivalent description
    for coset, order in leading:
        moved = (points @ group.normaliser[0][coset].T + group.normaliser[1][coset])[order]
        described += [moved + shift for shift in _polar_shifts(group, moved[: least.count(least[0])])]
    left, best = np.array(described), []
    for kind in dict.fromkeys(least):  # all agree in the kinds, so their coordinates decide, kind by kind
        start, n = least.index(kind), least.count(kind)
        keys = _keys(group, kind[1], left[:, start : start + n].reshape(-1, 3)).reshape(len(left), n)
        keys.sort(axis=1)
        for i in range(n):
            same = keys[:, i] == keys[:, i].min()
            left, keys = left[same], keys[same]
        best += [(*kind, _values(group, kind[1], key)) for key in keys[0].tolist()]
    return best


@lru_cache(maxsize=20_000)
def _leading(
    number: int, kinds: tuple[tuple[int, int], ...]
) -> tuple[list[tuple[int, int]], list[tuple[int, list[int]]]]:
    """Return the smallest list of kinds (element rank, Wyckoff index) of equivalent descriptions.

    Also the cosets of the normaliser that give it, with the order of the orbits in it.
    """
    maps = [[(rank, row[index]) for rank, index in kinds] for row in space_groups.get(number).letter_maps]
    least = min(map(sorted, maps))
    order = range(len(kinds))
    return least, [
        (coset, sorted(order, key=moved.__getitem__))
        for coset, moved in enumerate(maps)
        if sorted(moved) == least
    ]


def _polar_shifts(group: SpaceGroup, points: Floats) -> Floats:
    """Return shifts [n_shifts, 3] along polar axes that bring an image of one of the points [n, 3] to 0."""
    if not group.polar:
        return np.zeros((1, 3))
    axes = list(group.polar)
    shifts = np.zeros((len(points) * len(group.rotations), 3))
    shifts[:, axes] = -_images(group, points).reshape(-1, 3)[:, axes]
    _, first = np.unique(np.rint(shifts * STEPS * 10).astype(int) % (STEPS * 10), axis=0, return_index=True)
    return shifts[first]


def _images(group: SpaceGroup, points: Floats) -> Floats:
    """Return all images of points [n, 3], one per operator, [n, n_ops, 3]."""
    images: Floats = np.einsum("oij,nj->noi", group.rotations, points) + group.translations
    return images


def coordinates(group: SpaceGroup, index: int, point: Floats) -> tuple[int, ...]:
    """Return free parameters in thousandths, the smallest among the images on the representative subspace."""
    return _values(group, index, int(_keys(group, index, point[None])[0]))


def _keys(group: SpaceGroup, index: int, points: Floats) -> Ints:
    """Return the coordinates of points [n, 3] of a Wyckoff position as one number each, in their order."""
    position = group.wyckoff[index]
    if not position.free:
        return np.zeros(len(points), np.int64)
    images = _images(group, points)
    # 1e-6 keeps ties such as 0.0625 from falling on either side by the last bit
    values = np.floor(images[..., list(position.pivots)] * STEPS + 0.5 + 1e-6).astype(np.int64) % STEPS
    keys = values @ STEPS ** np.arange(len(position.free))[::-1]
    if len(position.free) < 3:
        on = position.residual(images.reshape(-1, 3)).reshape(keys.shape) < 1e-6
        keys = np.where(on, keys, STEPS**3)
    least: Ints = keys.min(axis=1)
    return least


def _values(group: SpaceGroup, index: int, key: int) -> tuple[int, ...]:
    """Return the coordinates that a number of `_keys` stands for."""
    n_free = len(group.wyckoff[index].free)
    return tuple(key // STEPS**i % STEPS for i in reversed(range(n_free)))
