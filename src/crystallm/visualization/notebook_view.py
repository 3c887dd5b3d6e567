"""A unit cell for notebooks: an SVG drawing that the mouse rotates; loads nothing.

Where scripts do not run, the drawing is static.
"""

from __future__ import annotations

import html
import json
import secrets
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm.crystallography import elements
from crystallm.visualization.unit_cell import colour

if TYPE_CHECKING:
    from pymatgen.core import Structure

SIZE = 320  # width and height, pixels
MAX_DRAWN = 600
"""Maximum number of atoms drawn; beyond it only the cell, as rotation would be slow."""
_BALL = 0.4  # radius of a ball as a fraction of the atomic radius
_FACE = 0.01  # Å; atoms this close to a face of the cell are drawn on the opposite face, too

# Seen from slightly above the a-c plane, as in `unit_cell`.
_ROTATION = ((0.94, -0.34, 0.0), (0.09, 0.26, 0.96), (-0.33, -0.9, 0.28))

# The same projection as `_drawing`, so that nothing moves at the first touch.
_SCRIPT = """
(function(){var s=document.getElementById("ID");if(!s)return;var d=DATA,R=d.r,on=null;
function p(v){return R.map(function(m){return m[0]*v[0]+m[1]*v[1]+m[2]*v[2]})}
function draw(){var h="",k=d.k,c=d.c,q=[];
d.e.forEach(function(e){var a=p(e[0]),b=p(e[1]);
q.push([(a[2]+b[2])/2-9,'<line x1="'+(c+k*a[0])+'" y1="'+(c-k*a[1])+
'" x2="'+(c+k*b[0])+'" y2="'+(c-k*b[1])+'" stroke="#555"/>'])});
d.a.forEach(function(a){var v=p(a[0]);q.push([v[2],
'<circle cx="'+(c+k*v[0])+'" cy="'+(c-k*v[1])+'" r="'+k*a[1]+
'" fill="'+a[2]+'" stroke="#222" stroke-width=".7"><title>'+a[3]+'</title></circle>'])});
q.sort(function(x,y){return x[0]-y[0]});q.forEach(function(x){h+=x[1]});s.querySelector("g").innerHTML=h}
function turn(i,j,t){var c=Math.cos(t),n=Math.sin(t),a=R[i],b=R[j];
R[i]=a.map(function(x,m){return c*x-n*b[m]});R[j]=a.map(function(x,m){return n*x+c*b[m]})}
s.onpointerdown=function(e){on=[e.clientX,e.clientY];s.setPointerCapture(e.pointerId)};
s.onpointerup=function(){on=null};
s.onpointermove=function(e){if(!on)return;turn(2,0,-(e.clientX-on[0])/120);turn(2,1,(e.clientY-on[1])/120);
on=[e.clientX,e.clientY];draw()};draw()})();
"""


def to_html(structure: Structure, *, title: str = "", name: str | None = None) -> str:
    """Return HTML with a drawing of the cell, a legend, and a script that rotates it.

    Args:
        structure: ordered, any cell.
        name: id of the drawing in the page; random if None.
    """
    name = f"crystal-{secrets.token_hex(4)}" if name is None else name
    scene = _scene(structure)
    legend = " ".join(
        f'<span style="color:{_hex(s)};-webkit-text-stroke:.4px #222">●</span>&nbsp;{html.escape(s)}'
        for s in dict.fromkeys(site.specie.symbol for site in structure)
    )
    script = _SCRIPT.replace("ID", html.escape(name)).replace("DATA", json.dumps(scene), 1)
    return (
        f'<div style="display:inline-block;font:13px sans-serif"><div>{html.escape(title)}</div>'
        f'<svg id="{html.escape(name)}" width="{SIZE}" height="{SIZE}" viewBox="0 0 {SIZE} {SIZE}" '
        'xmlns="http://www.w3.org/2000/svg" style="background:#fff;touch-action:none;cursor:grab">'
        f"<g>{_drawing(scene)}</g></svg><div>{legend}</div><script>{script}</script></div>"
    )


def _scene(structure: Structure) -> dict[str, Any]:
    """Return atoms and edges relative to the centre of the cell (Å), the rotation, and pixels per Å."""
    cell = np.asarray(structure.lattice.matrix)  # [3, 3]
    middle = cell.sum(axis=0) / 2
    corners = np.array(list(product((0, 1), repeat=3))) @ cell - middle  # [8, 3]
    edges = [
        [corners[i].round(3).tolist(), corners[j].round(3).tolist()]
        for i, j in combinations(range(8), 2)
        if (i ^ j).bit_count() == 1
    ]
    atoms: list[list[Any]] = []
    lengths = structure.lattice.abc
    for site in structure if len(structure) <= MAX_DRAWN else ():
        symbol = site.specie.symbol
        inside = site.frac_coords % 1.0
        images = [
            (x, x + 1.0) if x * length < _FACE else (x, x - 1.0) if (1 - x) * length < _FACE else (x,)
            for x, length in zip(inside, lengths, strict=True)
        ]
        radius = _BALL * (elements.get(symbol).atomic_radius or 1.2)
        for image in product(*images):
            point = (np.array(image) @ cell - middle).round(3).tolist()
            atoms.append([point, round(radius, 3), _hex(symbol), symbol])
    reach = max(float(np.linalg.norm(corners, axis=1).max()), 1e-9) + 0.8
    rotation = np.linalg.qr(np.array(_ROTATION).T)[0].T  # orthogonal rows, which the script preserves
    rotation *= np.sign((rotation * np.array(_ROTATION)).sum(axis=1))[:, None]
    return {
        "r": rotation.round(6).tolist(),
        "k": round(SIZE / (2 * reach), 4),
        "c": SIZE / 2,
        "e": edges,
        "a": atoms,
    }


def _drawing(scene: dict[str, Any]) -> str:
    """Draw the parts of the picture, the farthest first."""
    rotation, scale, centre = np.array(scene["r"]), scene["k"], scene["c"]

    def project(point: list[float]) -> tuple[float, float, float]:
        x, y, depth = rotation @ np.array(point)
        return round(centre + scale * x, 2), round(centre - scale * y, 2), depth

    parts: list[tuple[float, str]] = []
    for first, second in scene["e"]:
        (x1, y1, z1), (x2, y2, z2) = project(first), project(second)
        parts.append(((z1 + z2) / 2 - 9, f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#555"/>'))
    for point, radius, fill, symbol in scene["a"]:
        x, y, depth = project(point)
        ball = f'<circle cx="{x}" cy="{y}" r="{round(scale * radius, 2)}" fill="{fill}" stroke="#222"'
        parts.append((depth, f'{ball} stroke-width=".7"><title>{symbol}</title></circle>'))
    return "".join(text for _, text in sorted(parts, key=lambda part: part[0]))


def _hex(symbol: str) -> str:
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in colour(symbol))
