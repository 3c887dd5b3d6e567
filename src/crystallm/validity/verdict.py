"""Results of the checks of a crystal, and the facts of its structure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from crystallm.errors import CrystallmError

What = Literal["text", "crystal", "auto"]
"""What of a CIF is checked; see `check`."""


@dataclass(frozen=True, slots=True)
class Validity:
    """Results of the checks of one crystal; `checks` defines them.

    Attributes:
        sensible: the printed cell is within bounds.
        formula: the three printed formulas agree.
        multiplicity: the atom rows add up to the sum formula.
        bond_score: share of reasonable bonds, 0 to 1; None if it could not be computed.
        space_group: the printed group is the one that spglib finds.
        valid: it passes the paper's checks: all of these, and every bond is reasonable.
        reasons: what is wrong, a short sentence each; empty if and only if plausible.
        plausible: it is valid, and has the distances and the volume of known crystals.
    """

    sensible: bool
    formula: bool
    multiplicity: bool
    bond_score: float | None
    space_group: bool
    valid: bool
    reasons: tuple[str, ...]
    plausible: bool = False


@dataclass(frozen=True, slots=True)
class StructureFacts:
    """Facts of a structure; None for what could not be read.

    Attributes:
        volume_per_atom: Å^3.
        cell: a, b, c (Å), alpha, beta, gamma (degrees).
        printed_group: symbol of the printed space group.
        found_group: symbol of the space group that spglib finds.
        note: how the CIF was read, where that had to be decided.
        as_printed: whether the text itself was checked; False for a crystal written as a standard text first.
    """

    cell_formula: str | None = None
    n_atoms: int | None = None
    volume_per_atom: float | None = None
    cell: tuple[float, ...] | None = None
    printed_group: str | None = None
    found_group: str | None = None
    as_printed: bool = True
    note: str = ""


class CrystalLike(Protocol):
    """An object that can be checked like a string; a text `checked_text` takes precedence over `cif`."""

    @property
    def cif(self) -> str:
        """Return a CIF with the symmetry operators, as other programs read it; may raise TextError."""
        ...


def from_record(record: Mapping[str, Any]) -> Validity:
    """Return the result of a record of `check_record`."""
    return Validity(**{**record, "reasons": tuple(record["reasons"])})


def no_text(error: CrystallmError) -> Validity:
    """Return the result of a text that cannot be read."""
    return Validity(
        sensible=False,
        formula=False,
        multiplicity=False,
        bond_score=None,
        space_group=False,
        valid=False,
        reasons=(str(error),),
    )
