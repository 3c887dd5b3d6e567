"""Voronoi cells of atoms, face by face.

The cell of an atom at the origin among atoms at p_1, p_2, ... is the set of x with p_k . x <= p_k . p_k / 2
for all k. The face of p_k lies in the plane through its foot p_k / 2. In coordinates (u, v) of this plane,
centered on the foot, every other atom j leaves the half-plane

    p_j . u_k u + p_j . v_k v <= (p_j . p_j - p_j . p_k) / 2,

so a face is a large square clipped by half-planes, one after the other, nearest atoms first. Edges of zero
length, which are common in crystals, add nothing to areas and angles.

Needs numpy alone.
"""

from __future__ import annotations

from math import atan2, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm.geometry.compiled import Compiled

if TYPE_CHECKING:
    from crystallm.crystallography.space_groups import Floats

FAR = 1e4
"""Å; a cell that reaches so far is open."""
INSIDE = 1e-10
"""Å^2; a corner so close to a half-plane is in it."""


def cell(points: Floats, squares: Floats, n_first: int, radius: float) -> tuple[Floats, Floats] | None:
    """Return the solid angles [n] and areas [n] (Å^2) of the faces of the cell around the origin.

    It is computed from the nearest atoms first. A corner at distance c cannot be cut off by atoms farther
    than 2 c, so more atoms are added until the cell is that of all atoms within the radius.

    Args:
        points: [n_atoms, 3] all within the radius, by rising distance, Å.
        squares: [n_atoms] of these distances.
        n_first: atoms that are tried first.
        radius: Å.

    Returns:
        For the nearest n atoms, 0 where there is no face; None if the cell is open.
    """
    n_atoms = len(points)
    angles, areas = np.zeros(n_atoms), np.zeros(n_atoms)
    room = np.empty((4, n_atoms + 5))
    n = min(n_first, n_atoms)
    while n:
        farthest = _clip_faces(n, points, squares, angles, areas, *room)
        next_one = float(squares[n]) if n < n_atoms else radius * radius
        if farthest < FAR * FAR and (n == n_atoms or 4 * farthest <= next_one):
            return angles[:n], areas[:n]
        if n == n_atoms:
            break
        n = min(2 * n, n_atoms)
    return None


def _axes(x: float, y: float, z: float) -> tuple[float, float, float, float, float, float]:
    """Return two axes across a vector and each other, of length 1."""
    a, b, c = abs(x), abs(y), abs(z)
    if a <= b and a <= c:  # across the axis that is farthest from the vector
        p, q, r = 0.0, z, -y
    elif b <= c:
        p, q, r = -z, 0.0, x
    else:
        p, q, r = y, -x, 0.0
    length = sqrt(p * p + q * q + r * r)
    p, q, r = p / length, q / length, r / length
    length = sqrt(x * x + y * y + z * z)
    return p, q, r, (y * r - z * q) / length, (z * p - x * r) / length, (x * q - y * p) / length


def _clip(  # noqa: PLR0917 - compiled code takes arguments by position
    a: float, b: float, c: float, n: int, u: Any, v: Any, u2: Any, v2: Any
) -> int:
    """Write the part of a polygon of n corners (u, v) with a u + b v <= c to (u2, v2).

    Returns:
        The number of its corners; -1, with nothing written, if it is the whole polygon.
    """
    beyond = False
    for i in range(n):
        beyond = beyond or a * u[i] + b * v[i] > c
    if not beyond:
        return -1
    kept = 0
    last_u, last_v = u[n - 1], v[n - 1]
    last = a * last_u + b * last_v - c
    for i in range(n):
        this_u, this_v = u[i], v[i]
        this = a * this_u + b * this_v - c
        if (this > 0) != (last > 0):
            share = last / (last - this)
            u2[kept], v2[kept] = last_u + share * (this_u - last_u), last_v + share * (this_v - last_v)
            kept += 1
        if this <= 0:
            u2[kept], v2[kept] = this_u, this_v
            kept += 1
        last_u, last_v, last = this_u, this_v, this
    return kept


def _measure(n: int, u: Any, v: Any, height: float) -> tuple[float, float]:
    """Return the solid angle and the area of a polygon seen from a height above its origin."""
    angle = area = 0.0
    last_u, last_v = u[n - 1], v[n - 1]
    last_length = sqrt(height * height + last_u * last_u + last_v * last_v)
    for i in range(n):
        this_u, this_v = u[i], v[i]
        this_length = sqrt(height * height + this_u * this_u + this_v * this_v)
        turn = last_u * this_v - last_v * this_u
        # Van Oosterom and Strackee, IEEE Trans. Biomed. Eng. 30, 125 (1983), of the origin and an edge.
        dot = height * height + last_u * this_u + last_v * this_v
        angle += 2 * atan2(turn, last_length * this_length + dot + height * (last_length + this_length))
        area += turn / 2
        last_u, last_v, last_length = this_u, this_v, this_length
    return angle, area


def _write_faces(  # noqa: PLR0917 - compiled code takes arguments by position
    n: int, points: Any, squares: Any, angles: Any, areas: Any, u: Any, v: Any, u2: Any, v2: Any
) -> float:
    """Write the solid angles and areas of the faces of the cell among the first n atoms.

    Args:
        n: number of atoms.
        points: [n_atoms, 3], as `cell`.
        squares: [n_atoms] of their distances, Å^2.
        angles: written.
        areas: written, Å^2.
        u: room for n + 5 numbers, as `v`, `u2` and `v2`.

    Returns:
        The square of the distance of the farthest corner, Å^2; at least `FAR`^2 if the cell is open.
    """
    farthest = 0.0
    for k in range(n):
        angles[k] = areas[k] = 0.0
        x, y, z = points[k][0], points[k][1], points[k][2]
        ux, uy, uz, vx, vy, vz = _axes(x, y, z)
        u[0], u[1], u[2], u[3] = FAR, -FAR, -FAR, FAR
        v[0], v[1], v[2], v[3] = FAR, FAR, -FAR, -FAR
        n_corners, reach = 4, FAR * FAR  # reach: the square of the distance of the farthest corner
        for j in range(n):
            if squares[j] >= 4 * reach or not n_corners:
                break  # neither this plane nor a later one cuts a corner off
            if j == k:
                continue
            p, q, r = points[j][0], points[j][1], points[j][2]
            a, b = p * ux + q * uy + r * uz, p * vx + q * vy + r * vz
            c = (squares[j] - (p * x + q * y + r * z)) / 2 + INSIDE
            kept = _clip(a, b, c, n_corners, u, v, u2, v2)
            if kept < 0:
                continue
            u, v, u2, v2 = u2, v2, u, v
            n_corners, reach = kept, 0.0
            for i in range(kept):
                reach = max(reach, squares[k] / 4 + u[i] * u[i] + v[i] * v[i])
        if n_corners:
            farthest = max(farthest, reach)
            angles[k], areas[k] = _measure(n_corners, u, v, sqrt(squares[k]) / 2)
    return farthest


_clip_faces = Compiled(_write_faces, _axes, _clip, _measure)
