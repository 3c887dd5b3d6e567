"""A loop gives the same as Python and compiled, and is compiled once it has taken its time."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from crystallm.geometry import contacts, distances, voronoi
from crystallm.geometry.compiled import Compiled
from crystallm.grammar.orbits import coordinates

RNG = np.random.default_rng(0)
VECTORS = 4 * np.eye(3) + RNG.uniform(-0.5, 0.5, (3, 3))
POINTS = RNG.random((9, 3))
IMAGES = distances.SHIFTS @ VECTORS
NEAR = np.array(sorted(IMAGES.tolist(), key=np.linalg.norm)[1:])


def limits(*squares: float) -> np.ndarray:
    """Limits of eight atoms, Å^2: the shortest distance, and the gap."""
    return np.tile(np.array(squares, dtype=float), (8, 1))


CASES = {
    "cell": (
        voronoi._clip_faces,
        (26, NEAR, (NEAR**2).sum(axis=1), np.zeros(26), np.zeros(26), *np.zeros((4, 31))),
    ),
    "distances": (
        distances._find_nearest,
        (VECTORS, POINTS, np.array([0, 4, 8]), IMAGES, np.zeros((3, 9))),
    ),
    "too close": (contacts._too_close, (8, POINTS, POINTS[8], VECTORS, IMAGES, limits(4.0, 0, 0))),
    "in a gap": (contacts._too_close, (8, POINTS, POINTS[8], VECTORS, IMAGES, limits(1e-4, 1e-4, 16.0))),
    "far enough": (contacts._too_close, (8, POINTS, POINTS[8], VECTORS, IMAGES, limits(1e-4, 0, 0))),
    "room": (
        contacts._leave_room,
        (
            *(RNG.random(3), RNG.random((6, 3)), np.array([[0.0, 0, -1], [0, 0, -2], [1, -2, 0]] * 2)),
            *(np.array([-2, -1, -1]), np.array([1, 3, 3]), VECTORS, limits(1.2, 2.0, 2.5)[:6]),
            *(1000, np.zeros(1001, dtype=np.int64)),
        ),
    ),
    "digits": (
        coordinates._find_digits,
        (
            *coordinates._maps(1, 0),
            *(np.array([100, 7, 50]), np.array([[100, 7, 54], [3, 7, 50]]), np.zeros(10, dtype=np.int64)),
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_python_and_compiled_code_give_the_same(name):
    loop, args = CASES[name]
    pytest.importorskip("numba")
    plain, fast = ([np.copy(a) if isinstance(a, np.ndarray) else a for a in args] for _ in range(2))
    assert loop.as_python(*plain) == pytest.approx(loop.as_compiled()(*fast), abs=1e-12)
    changed = False
    for before, one, other in zip(args, plain, fast, strict=True):
        if isinstance(before, np.ndarray):
            np.testing.assert_allclose(one, other, atol=1e-12)
            changed |= not np.array_equal(before, one)
    assert changed or name in ("too close", "in a gap", "far enough")


def test_without_numba_a_loop_stays_python(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    doubled = Compiled(lambda values: values.__setitem__(0, 2 * values[0]))
    values = np.array([3.0, 1.0])
    doubled(values)
    doubled(values)
    assert values.tolist() == [12.0, 1.0]


def test_numba_is_loaded_only_once_a_loop_has_taken_its_time():
    code = (
        "import sys, numpy as np\n"
        "from crystallm.geometry import compiled, distances\n"
        "call = lambda: distances.nearest_squares(np.eye(3), np.zeros((2, 3)), [0, 1])\n"
        "call(); early = 'numba' in sys.modules\n"
        "compiled.PATIENCE = 0.0\n"
        "call(); print(early, 'numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_arrays_without_rows_stay_as_they_are():
    """The first atom of a cell has no neighbors: an array [0, 3] is an empty list for Python."""
    empty = np.zeros((0, 3))
    assert Compiled(len).as_python(empty) == 0
    assert empty.shape == (0, 3)
