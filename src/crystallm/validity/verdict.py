"""Verdicts on crystals, and what they rest on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystallm.errors import CrystallmError


What = Literal["text", "crystal", "auto"]
"""What of a CIF is judged; see `check`."""


@dataclass(frozen=True, slots=True)
class Validity:
    """The verdicts on one crystal; see the module for what each means.

    Attributes:
        sensible: the printed cell is within bounds.
        formula: the three printed formulas agree.
        multiplicity: the atom rows add up to the sum formula.
        bond_score: share of reasonable bonds, 0 to 1; None where it could not be found.
        space_group: the printed group is the one found.
        valid: all of it, and every bond reasonable.
        reasons: what is wrong, one short sentence each; empty if and only if valid.
    """

    sensible: bool
    formula: bool
    multiplicity: bool
    bond_score: float | None
    space_group: bool
    valid: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StructureFacts:
    """What a judge has seen of a crystal; None where it could not be seen.

    Attributes:
        cell_formula: composition of the cell, `Na4Cl4`.
        n_atoms: atoms in the cell.
        volume_per_atom: Å^3.
        cell: a, b, c (Å), alpha, beta, gamma (degrees).
        printed_group: symbol of the space group that the text prints.
        found_group: symbol of the one that spglib finds.
        as_printed: whether the text itself was judged; False for a crystal that was printed anew.
    """

    cell_formula: str | None = None
    n_atoms: int | None = None
    volume_per_atom: float | None = None
    cell: tuple[float, ...] | None = None
    printed_group: str | None = None
    found_group: str | None = None
    as_printed: bool = True


class CrystalLike(Protocol):
    """What can be judged beside a string. Where it has a text `judged`, that is taken before `cif`."""

    @property
    def cif(self) -> str:
        """A CIF with the symmetry operators, as other programs read it; may raise TextError."""
        ...


def from_record(record: Mapping[str, Any]) -> Validity:
    """The verdict of a record that `check_record` made."""
    return Validity(**{**record, "reasons": tuple(record["reasons"])})


def no_text(error: CrystallmError) -> Validity:
    """Return the verdict on a text that cannot be read."""
    return Validity(
        sensible=False,
        formula=False,
        multiplicity=False,
        bond_score=None,
        space_group=False,
        valid=False,
        reasons=(str(error),),
    )
