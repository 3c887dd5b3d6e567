"""Read POSCAR and CONTCAR files of VASP: title, scale, cell, symbols, counts, positions.

The scale is one number, three (one for each Cartesian axis), or negative: then it is the volume of the cell
in Å^3. It applies to Cartesian positions, too. Files of VASP 4 have no line of symbols: there the title must
consist of them. Velocities and whatever else follows the positions are ignored.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from crystallm.crystallography.element_names import element
from crystallm.errors import TextError
from crystallm.sources import building

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure

_POTENTIAL = re.compile(r"([A-Za-z]{1,2}(?:\d*[+-])?\d*)(?:_.*|/.*)?")
_COMMENT = re.compile(r"[#!].*")


def read(text: str) -> tuple[Structure, list[str]]:
    """Return the structure of a POSCAR, and notes.

    Raises:
        TextError: it is not one, or its elements are not named.
    """
    lines = text.splitlines()
    if len(lines) < 8:
        raise TextError(f"it has {len(lines)} lines, and a POSCAR has at least 8")
    scale = _numbers(_COMMENT.sub("", lines[1]).split(), "the scale")
    if len(scale) not in (1, 3) or any(len(line.split()) < 3 for line in lines[2:5]):
        raise TextError("its scale is not one number or three, or its cell not three vectors of three")
    vectors = np.array([_numbers(line.split()[:3], "a vector of the cell") for line in lines[2:5]])
    factors = _factors(scale, vectors)
    symbols, counts, start, notes = _species(lines)
    if sum(counts) > len(lines):
        raise TextError("it has fewer lines than atoms")
    if lines[start].strip()[:1].lower() == "s":  # selective dynamics
        start += 1
    mode = lines[start].strip()[:1].lower() if start < len(lines) else ""
    if not mode or mode.isdigit() or mode in "+-.":
        raise TextError("its positions are neither called Direct nor Cartesian")
    rows = lines[start + 1 : start + 1 + sum(counts)]
    if len(rows) < sum(counts):
        raise TextError("it has fewer lines than atoms")
    if any(len(line.split()) < 3 for line in rows):
        raise TextError("a position is not of three numbers")
    positions = np.array([_numbers(line.split()[:3], "a position") for line in rows])
    names = [symbol for symbol, count in zip(symbols, counts, strict=True) for _ in range(count)]
    _check_labels(rows, names)
    cartesian = mode in "ck"
    found = building.build(
        building.cell((vectors * factors).tolist()),
        [{name: 1.0} for name in names],
        positions * factors if cartesian else positions,
        cartesian=cartesian,
    )
    return found, notes


def _factors(
    scale: Sequence[float], vectors: np.ndarray[tuple[int, int], np.dtype[np.float64]]
) -> list[float]:
    """Return the factor of each Cartesian axis."""
    if len(scale) == 3:
        if min(scale) <= 0:
            raise TextError("three scales are positive numbers")
        return list(scale)
    if scale[0] == 0:
        raise TextError("its scale is 0")
    if scale[0] > 0:
        return [scale[0]] * 3
    volume = abs(float(np.linalg.det(vectors)))
    if not volume > 0:
        raise TextError("no cell: it has no volume")
    return [float((-scale[0] / volume) ** (1 / 3))] * 3


def _species(lines: Sequence[str]) -> tuple[list[str], list[int], int, list[str]]:
    """Return elements, their counts, the number of the next line, and notes."""
    words = _COMMENT.sub("", lines[5]).split()
    if words and all(word.isdigit() for word in words):
        title = lines[0].split()
        try:
            symbols = [element(word) for word in title]
        except TextError:
            symbols = []
        if len(symbols) != len(words) or not all(word.isalpha() for word in title):
            raise TextError("its elements are not named: neither in line 6 nor in the title")
        return symbols, _counts(words), 6, [f"elements are named by the title, {' '.join(title)}"]
    symbols = [_symbol(word) for word in words]
    counts = _counts(_COMMENT.sub("", lines[6]).split())
    if not symbols or len(symbols) != len(counts):
        raise TextError(f"{len(symbols)} symbols for {len(counts)} numbers of atoms")
    return symbols, counts, 7, []


def _symbol(word: str) -> str:
    """Return the element of a symbol, perhaps with that of a potential: `Na_pv/3f2a`, `Ga_d_GW`."""
    match = _POTENTIAL.fullmatch(word)
    if match is None:
        raise TextError(f"{word[:20]!r} is not an element")
    return element(match[1])


def _counts(words: Sequence[str]) -> list[int]:
    if not words or not all(word.isdecimal() and len(word) < 19 for word in words):
        raise TextError("its numbers of atoms are not whole numbers")
    return [int(word) for word in words]


def _check_labels(rows: Sequence[str], names: Sequence[str]) -> None:
    """Check that symbols behind positions, if there are any, are those of the line of symbols."""
    for row, name in zip(rows, names, strict=True):
        for word in row.split()[3:]:
            if word[:1] in "#!" or not word[:1].isalpha() or word.upper() in ("T", "F", ".TRUE.", ".FALSE."):
                continue
            try:
                symbol = element(re.sub(r"_.*", "", word))
            except TextError:
                continue
            if symbol != name:
                raise TextError(f"an atom of {name} has the label {word[:20]!r} behind its position")
            break


def _numbers(words: Sequence[str], what: str) -> list[float]:
    try:
        found = [float(re.sub("[dD]", "e", word)) for word in words]
    except ValueError:
        raise TextError(f"{what} is {' '.join(words)[:40]!r}: that is not numbers") from None
    if not found or not np.isfinite(found).all():
        raise TextError(f"{what} is {' '.join(words)[:40]!r}: that is not numbers")
    return found
