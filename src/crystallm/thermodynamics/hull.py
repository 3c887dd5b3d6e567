"""Energy above the convex hull of known entries.

The entries are of a file:

    .csv, .jsonl     a row an entry: composition (or formula), energy_per_atom (or energy, of the formula)
    .json            a list of such rows, or of pymatgen's ComputedEntry dictionaries

Entries and crystals must come from the same energy model, else the differences mean nothing. Entries that
`crystallm hull` has written say of which model they are (`model`, `relaxed`), and are held to it; of all
others this module cannot know. pymatgen's PhaseDiagram does the geometry.
"""

from __future__ import annotations

import csv
import json
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError, InputError, install

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pymatgen.core import Composition


class Hull:
    """The convex hull of the entries of a file, computed for each chemical system when first needed.

    Raises:
        InputError: an unknown format, or an invalid entry.
        CrystallmError: it cannot be read, or pymatgen's phase diagrams are not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import pymatgen.analysis.phase_diagram  # noqa: F401
        except ImportError:
            raise CrystallmError(f"the hull needs all of pymatgen: {install('energy')}") from None
        self._path = path
        rows = _rows(path)
        with _quiet():
            self._entries = [_entry(row, f"{path}, entry {i}") for i, row in enumerate(rows, 1)]
        self.models = {str(row["model"]) for row in rows if row.get("model")}
        """The energy models that entries name."""
        self.relaxed = {row["relaxed"] for row in rows if isinstance(row.get("relaxed"), bool)}
        """Whether entries say that they were relaxed with it; empty if none says so."""
        self._elements = {
            entry.composition.elements[0].symbol
            for entry in self._entries
            if len(entry.composition.elements) == 1
        }
        self._diagrams: dict[frozenset[str], Any] = {}
        if not self._entries:
            raise InputError(f"{str(path)!r} has no entry")

    def missing(self, symbols: Iterable[str]) -> list[str]:
        """Return the elements among these without an entry."""
        return sorted(set(symbols) - self._elements)

    def require(self, symbols: Iterable[str]) -> None:
        """Raise an error for elements without an entry. Raises InputError: there is one."""
        if missing := self.missing(symbols):
            said = f"{str(self._path)!r} has no entry of the element {', '.join(missing)}"
            raise InputError(f"{said}: a hull needs one of each")

    def check_model(self, model: str) -> None:
        """Raise an error if entries name another energy model. Raises InputError: there is one."""
        if others := sorted(self.models - {model}):
            said = f"{str(self._path)!r} has energies of {', '.join(others)}, not of {model}"
            raise InputError(f"{said}: take the entries of the same model")

    def above(self, composition: Composition, energy: float) -> float:
        """Return the energy of a crystal above the hull, eV/atom; negative if it is below all entries.

        Args:
            energy: its energy, eV per atom.

        Raises:
            InputError: there is no entry of one of its elements.
        """
        system = frozenset(element.symbol for element in composition.elements)
        if system not in self._diagrams:
            from pymatgen.analysis.phase_diagram import PhaseDiagram

            self.require(system)
            inside = [e for e in self._entries if {x.symbol for x in e.composition.elements} <= system]
            with _quiet():
                self._diagrams[system] = PhaseDiagram(inside)
        return energy - float(self._diagrams[system].get_hull_energy_per_atom(composition))


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress pymatgen's warnings of noble gases, which have no electronegativity for sorting."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No Pauling electronegativity")
        yield


class MissingElements:
    """Elements that the entries of a file lack, for many formulas.

    Args:
        hull: of that file, if it has been read.
        what: the formulas are those of, one and many.
    """

    def __init__(
        self, path: Path, hull: Hull | None = None, what: tuple[str, str] = ("formula", "formulas")
    ) -> None:
        self._hull = Hull(path) if hull is None else hull
        self._path = path
        self._what = what
        self._elements: set[str] = set()
        self._n = 0

    def look(self, symbols: Iterable[str]) -> None:
        """Add the elements of a formula."""
        if missing := self._hull.missing(symbols):
            self._elements.update(missing)
            self._n += 1

    @property
    def said(self) -> str:
        """Return a line on the missing elements; "" for none."""
        if not self._n:
            return ""
        formulas = f"{self._what[0]} has" if self._n == 1 else f"{self._what[1]} have"
        what = f"{str(self._path)!r} has no entry of the element {', '.join(sorted(self._elements))}"
        return f"{what}: {self._n:,} {formulas} no energy above the hull"


def _rows(path: Path) -> list[Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CrystallmError(f"{str(path)!r} cannot be read: {error}") from None
    kind = path.suffix.lower()
    if kind == ".csv":
        return list(csv.DictReader(text.splitlines()))
    if kind not in (".json", ".jsonl"):
        raise InputError(f"entries of a hull in {path.name!r}: give a .csv, .jsonl or .json file")
    try:
        if kind == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{str(path)!r} is no {kind[1:].upper()}: {error}") from None
    if isinstance(found, dict) and isinstance(found.get("entries"), list):
        found = found["entries"]
    if not isinstance(found, list):
        raise InputError(f"{str(path)!r} holds no list of entries")
    return found


def _entry(row: Any, where: str) -> Any:
    """An entry of pymatgen."""
    from pymatgen.analysis.phase_diagram import PDEntry
    from pymatgen.core import Composition

    if not isinstance(row, dict):
        raise InputError(f"{where} is no row of names and values")
    formula = row.get("composition") or row.get("formula")
    try:
        composition = Composition(formula)
        if row.get("energy_per_atom") not in (None, ""):
            energy = float(row["energy_per_atom"]) * composition.num_atoms
        else:
            energy = float(row["energy"]) + float(row.get("correction") or 0.0)
    except (KeyError, ValueError, TypeError):
        raise InputError(
            f"{where}: needs a composition and an energy_per_atom (or energy), eV; got {str(row)[:60]}"
        ) from None
    if not (composition.valid and composition.num_atoms and energy == energy and abs(energy) != float("inf")):  # noqa: PLR0124 - NaN
        raise InputError(f"{where}: {formula!r} with the energy {energy} is no entry")
    return PDEntry(composition, energy)
