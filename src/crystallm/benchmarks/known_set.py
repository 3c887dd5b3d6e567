"""Known crystals under their formulas: of a collection of millions, those that a generated one could equal.

Known crystals are filed under the `_chemical_formula_sum` that they print, and are read only if a generated
one has the same; the others cost a search in their text. Refuses to know what is compared, and how.
"""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crystallm.errors import CrystallmError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping
    from pathlib import Path

_SUM = re.compile(
    r"""^_chemical_formula_sum[ \t]+(?:'([^'\n]*)'|"([^"\n]*)"|([^\s'"][^\n]*))""", re.MULTILINE
)
_TERM = re.compile(r"([A-Z][a-z]?)(\d*\.?\d*)")


@dataclass(slots=True)
class KnownSet:
    """Known crystals by formula: those alone whose formula is wanted, their texts packed."""

    n_rows: int = 0
    """Known crystals that were streamed."""
    n_unreadable: int = 0
    """Those whose formula could not be found."""
    rows: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)
    """For each formula, ids and packed texts in their order."""

    def text(self, formula: str, number: int) -> str:
        """The CIF of a row."""
        return zlib.decompress(self.rows[formula][number][1]).decode()


def read_known(paths: Iterable[str | Path]) -> Iterator[tuple[str, str]]:
    """Ids and CIFs of collections, one after the other; "" for what is no crystal.

    Raises:
        InputError: as `sources.read`.
    """
    from crystallm.sources import collection

    for path in paths:
        for entry in collection.read_cifs(path):
            yield entry.id, entry.text or ""


def index(
    known: Iterable[tuple[str, str]], wanted: Container[str], *, on_row: Callable[[int], None] | None = None
) -> KnownSet:
    """File known crystals under their formulas, in one pass; what is not wanted is forgotten at once.

    Args:
        known: ids and CIFs.
        wanted: formulas as `formula_of` and `formula_in` give them.
        on_row: called with the number of rows so far, every thousand.
    """
    found = KnownSet()
    for identifier, text in known:
        found.n_rows += 1
        formula = formula_in(text)
        if formula is None:
            found.n_unreadable += 1
        elif formula in wanted:
            # Level 1: a quarter of the size for 20 microseconds.
            found.rows.setdefault(formula, []).append((identifier, zlib.compress(text.encode(), 1)))
        if on_row is not None and not found.n_rows % 1000:
            on_row(found.n_rows)
    return found


def formula_of(counts: Mapping[str, float]) -> str:
    """The reduced formula of element counts, `Cl1Na1` of Na4Cl4; fractions stay as they are."""
    if all(count == round(count) for count in counts.values()):
        divisor = math.gcd(*(round(count) for count in counts.values())) or 1
        counts = {symbol: round(count) // divisor for symbol, count in counts.items()}
    return "".join(f"{symbol}{counts[symbol]:g}" for symbol in sorted(counts) if counts[symbol])


def formula_in(text: str) -> str | None:
    """The reduced formula of a CIF by its printed sum, else of its structure; None if it has none."""
    match = _SUM.search(text)
    if match is not None:
        printed = next(group for group in match.groups() if group is not None)
        counts: dict[str, float] = {}
        for symbol, count in _TERM.findall(printed):
            if count != ".":
                counts[symbol] = counts.get(symbol, 0) + float(count or 1)
        rest = _TERM.sub("", printed)
        if counts and not rest.strip(" \t\r,"):
            return formula_of(counts)
    from crystallm import validity

    try:
        structure = validity.read_structure(text)
    except CrystallmError:
        return None
    return formula_of(structure.composition.get_el_amt_dict())
