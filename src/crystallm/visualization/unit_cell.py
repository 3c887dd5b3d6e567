"""Draw a unit cell as shaded spheres, with its edges, bonds and a legend.

Parallel projection, seen from slightly above the a-c plane.
"""

from __future__ import annotations

import io
import math
from functools import cache
from itertools import combinations, pairwise, product
from typing import TYPE_CHECKING, cast

import numpy as np

from crystallm.crystallography import elements

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from pymatgen.core import Structure


# Colours of the elements H to Pu as Jmol draws them (jmol.sourceforge.net/jscolors), RGB in hex.
_JMOL = (
    "ffffff d9ffff cc80ff c2ff00 ffb5b5 909090 3050f8 ff0d0d 90e050 b3e3f5 ab5cf2 8aff00 bfa6a6 f0c8a0 "
    "ff8000 ffff30 1ff01f 80d1e3 8f40d4 3dff00 e6e6e6 bfc2c7 a6a6ab 8a99c7 9c7ac7 e06633 f090a0 50d050 "
    "c88033 7d80b0 c28f8f 668f8f bd80e3 ffa100 a62929 5cb8d1 702eb0 00ff00 94ffff 94e0e0 73c2c9 54b5b5 "
    "3b9e9e 248f8f 0a7d8c 006985 c0c0c0 ffd98f a67573 668080 9e63b5 d47a00 940094 429eb0 57178f 00c900 "
    "70d4ff ffffc7 d9ffc7 c7ffc7 a3ffc7 8fffc7 61ffc7 45ffc7 30ffc7 1fffc7 00ff9c 00e675 00d452 00bf38 "
    "00ab24 4dc2ff 4da6ff 2194d6 267dab 266696 175487 d0d0e0 ffd123 b8b8d0 a6544d 575961 9e4fb5 ab5c00 "
    "754f45 428296 420066 007d00 70abfa 00baff 00a1ff 008fff 0080ff 006bff"
).split()
_BALL = 0.36  # radius of a ball as a fraction of the atomic radius, small enough to show bonds
_EDGE_TOL = 0.01  # Å; atoms this close to a face of the cell are drawn on the opposite face too
_BOND_SLACK = 1.15  # maximum length of a bond over the longer of its atoms' shortest distances
_BOND_REACH = 1.25  # maximum length of a bond over the sum of the atomic radii
_SAME_ATOM = 0.1  # Å; points closer than this are one atom
_PIECES = 24  # of an edge or bond, each with its own depth, so that nearer parts hide it
_SHADES = 24
_MAX_DRAWN = 2000  # maximum number of spheres


def colour(symbol: str) -> tuple[float, float, float]:
    """Return Jmol's colour of an element, each channel in [0, 1]."""
    text = _JMOL[elements.get(symbol).number - 1]
    return int(text[:2], 16) / 255, int(text[2:4], 16) / 255, int(text[4:], 16) / 255


def unit_cell(structure: Structure, *, title: str = "", bonds: bool = True, dpi: int = 150) -> bytes:
    """Draw the cell.

    Args:
        structure: ordered, any cell.
        title: a line above it.
        bonds: whether to draw bonds between atoms of different elements (of the same, if there is only one):
            at most 1.15 times the shortest such distance of one of them, and 1.25 times the sum of their
            atomic radii.
        dpi: dots per inch; the picture is 6 by 6 inches.

    Returns:
        PNG bytes.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    symbols, points = drawn_atoms(structure)
    view = _view(structure)
    cell = np.asarray(structure.lattice.matrix)
    middle = cell.sum(axis=0) / 2
    seen = (points - middle) @ view.T  # [n_drawn, 3], page x, page y, depth towards the reader, Å
    balls = seen, np.array([_radius(symbol) for symbol in symbols])

    figure = Figure(figsize=(6, 6), dpi=dpi, facecolor="white")
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.9))
    axes.set_aspect("equal")
    axes.set_axis_off()
    corners = (np.array(list(product((0, 1), repeat=3))) @ cell - middle) @ view.T
    for first, second in combinations(range(8), 2):
        if (first ^ second).bit_count() == 1:
            _stick(axes, corners[[first, second]], balls, "#444444", 1.1)
    if bonds:
        for first, second in drawn_bonds(structure, symbols, points):
            half = (seen[first] + seen[second]) / 2
            for end in (first, second):
                _stick(axes, np.array([seen[end], half]), balls, _shade(symbols[end], -0.1), 4.0)
    for symbol, (x, y, depth) in zip(symbols, seen, strict=True):
        radius = _radius(symbol)
        for step in range(_SHADES):
            # Smaller and lighter circles towards the light, upper left: a sphere without a gradient.
            share = step / (_SHADES - 1)
            offset = 0.38 * radius * share
            axes.add_patch(
                Circle(
                    (x - offset, y + offset),
                    radius * (1 - 0.95 * share),
                    facecolor=_shade(symbol, -0.28 + 1.05 * share**1.6),
                    edgecolor="#222222" if step == 0 else "none",
                    linewidth=0.6,
                    zorder=depth + step * 1e-4,
                )
            )
    _frame(axes, corners, seen, symbols)
    _legend(axes, symbols)
    if title:
        figure.suptitle(title, fontsize=13)
    buffer = io.BytesIO()
    # Without software and date, the same crystal gives the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def drawn_atoms(structure: Structure) -> tuple[list[str], NDArray[np.float64]]:
    """Return symbols and points [n_drawn, 3] (Å) of the atoms, repeated on opposite faces."""
    lengths = np.array(structure.lattice.abc)
    cell = np.asarray(structure.lattice.matrix)
    symbols, points = [], []
    for site in structure:
        fraction = np.asarray(site.frac_coords) % 1.0
        fraction[1.0 - fraction < _EDGE_TOL / lengths] = 0.0
        shifts = [
            (0, 1) if value < _EDGE_TOL / length else (0,)
            for value, length in zip(fraction, lengths, strict=True)
        ]
        for shift in product(*shifts):
            symbols.append(str(site.specie.symbol))
            points.append((fraction + shift) @ cell)
            if len(points) > _MAX_DRAWN:
                raise ValueError(
                    f"a cell of {len(structure)} atoms is too large for a picture: at most {_MAX_DRAWN}"
                )
    return symbols, np.array(points)


def _view(structure: Structure) -> NDArray[np.float64]:
    """Return the rows page x, page y, depth, [3, 3]. c points up; the cell is rotated slightly about it."""
    cell = np.asarray(structure.lattice.matrix)
    up = cell[2] / np.linalg.norm(cell[2])
    across = cell[0] - (cell[0] @ up) * up
    across /= np.linalg.norm(across)
    towards = np.cross(across, up)
    angle, tilt = math.radians(-24), math.radians(14)
    frame = np.array([across, up, towards])
    about_up = np.array(
        [[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]]
    )
    about_across = np.array(
        [[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]]
    )
    return cast("NDArray[np.float64]", about_across @ about_up @ frame)


def drawn_bonds(
    structure: Structure, symbols: list[str], points: NDArray[np.float64]
) -> list[tuple[int, int]]:
    """Return pairs of bonded atoms; see `unit_cell`.

    Args:
        points: of the drawn atoms, [n_drawn, 3], Å.
    """
    kinds = np.array(symbols)
    alike = len(set(symbols)) == 1
    nearest = _nearest(structure, kinds, points, alike=alike)
    distances = np.linalg.norm(points[:, None] - points[None, :], axis=-1)
    limits = _BOND_SLACK * np.maximum(nearest[:, None], nearest[None, :])
    radii = np.array([_radius(symbol) for symbol in symbols]) / _BALL
    limits = np.minimum(limits, _BOND_REACH * (radii[:, None] + radii[None, :]))
    joined = np.triu((distances > _SAME_ATOM) & (distances <= limits))
    if not alike:
        joined &= kinds[:, None] != kinds[None, :]
    return [(int(first), int(second)) for first, second in np.argwhere(joined)]


def _nearest(
    structure: Structure, kinds: NDArray[np.str_], points: NDArray[np.float64], *, alike: bool
) -> NDArray[np.float64]:
    """Return the distance [n_drawn] (Å) to the nearest atom of another element (of any, if `alike`)."""
    lattice = structure.lattice
    distances = lattice.get_all_distances(lattice.get_fractional_coords(points), structure.frac_coords)
    symbols = np.array([str(site.specie.symbol) for site in structure])
    excluded = distances <= _SAME_ATOM
    if not alike:
        excluded |= kinds[:, None] == symbols[None, :]
    shortest = np.where(excluded, np.inf, distances).min(axis=1)
    return np.asarray(np.where(np.isfinite(shortest), shortest, min(lattice.abc)), dtype=np.float64)


@cache
def _radius(symbol: str) -> float:
    """Return the radius of a ball, Å."""
    return _BALL * (elements.get(symbol).atomic_radius or 1.5)


def _shade(symbol: str, amount: float) -> tuple[float, float, float]:
    """Mix an element's colour with white (amount up to 1) or black (down to -1)."""
    red, green, blue = colour(symbol)
    if amount < 0:
        return red * (1 + amount), green * (1 + amount), blue * (1 + amount)
    amount = min(amount, 1.0)
    return red + (1 - red) * amount, green + (1 - green) * amount, blue + (1 - blue) * amount


def _stick(
    axes: Axes,
    ends: NDArray[np.float64],
    balls: tuple[NDArray[np.float64], NDArray[np.float64]],
    tint: str | tuple[float, float, float],
    width: float,
) -> None:
    """Draw a line between `ends` [2, 3] except inside balls (centres [n, 3], radii [n], Å)."""
    centres, radii = balls
    for first, second in pairwise(np.linspace(ends[0], ends[1], _PIECES + 1)):
        middle = (first + second) / 2
        if np.any(np.linalg.norm(centres - middle, axis=1) < 0.97 * radii):
            continue
        axes.plot(
            (first[0], second[0]),
            (first[1], second[1]),
            color=tint,
            linewidth=width,
            solid_capstyle="round",
            zorder=middle[2],
        )


def _frame(axes: Axes, corners: NDArray[np.float64], seen: NDArray[np.float64], symbols: list[str]) -> None:
    """Set the limits, with room for the legend below."""
    margin = max(_radius(symbol) for symbol in symbols) * 1.15
    page = np.concatenate([corners[:, :2], seen[:, :2]])
    low, high = page.min(axis=0) - margin, page.max(axis=0) + margin
    low[1] -= 0.08 * (high[1] - low[1])
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])


def _legend(axes: Axes, symbols: list[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            marker="o",
            linestyle="",
            markersize=11,
            markerfacecolor=colour(symbol),
            markeredgecolor="#222222",
            label=symbol,
        )
        for symbol in elements.electronegativity_order(set(symbols))
    ]
    axes.legend(handles=handles, loc="lower center", ncols=min(len(handles), 8), frameon=False, fontsize=11)
