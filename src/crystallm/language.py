"""What a language of crystals must offer, and the languages there are.

A language writes a crystal as token ids and reads it back. Everything else (networks, sampling, files) works
with ids and asks the language for their meaning. `CifLanguage` is the published one; `crystallm.orbits` holds
ours. This module knows no network and no grammar.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from crystallm.cif.language import CifLanguage
from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pymatgen.core import Structure


NAMES = ("orbits", "cif")
"""Languages by name, the default one first."""


@runtime_checkable
class Language(Protocol):
    """How crystals are written as tokens. Token ids run from 0 to len(vocabulary()) - 1."""

    @property
    def name(self) -> str:
        """`cif` or `orbits`; weights name their language so."""
        ...

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The run of ids that, once generated, ends a crystal."""
        ...

    @property
    def light_ids(self) -> tuple[int, ...]:
        """Tokens of which a network need not know much: given by a prompt or the rules, or mere noise."""
        ...

    def vocabulary(self) -> tuple[str, ...]:
        """The tokens in the order of their ids."""
        ...

    def encode(self, structure: Structure, symprec: float = 0.1) -> list[int]:
        """Ids of a structure, end included.

        Args:
            structure: ordered, any cell.
            symprec: distance tolerance of the symmetry search, Å.

        Raises:
            InputError: the language has no word for a part of it.
            TextError: it cannot be told as a crystal.
        """
        ...

    def opening(self, ids: Sequence[int]) -> tuple[dict[str, int], int]:
        """What `prompt` says, read back: composition of the conventional cell, number of the space group.

        Raises:
            TextError: the ids of no crystal, or of less than this.
        """
        ...

    def decode(self, ids: Iterable[int]) -> Structure:
        """The structure that ids describe, its conventional cell.

        Raises:
            TextError: they describe none; says why.
        """
        ...

    def standard_text(self, ids: Iterable[int]) -> str:
        """The standard text (see `cif`) of the crystal, its space group as it was written.

        Raises:
            TextError: the ids describe no crystal.
        """
        ...

    def prompt(
        self, composition: Iterable[tuple[str, int]] | None = None, space_group: int | None = None
    ) -> list[int]:
        """How a crystal begins of which this is known.

        Args:
            composition: (symbol, count) of the conventional cell; None leaves it to the network.
            space_group: number; None leaves it to the network.

        Raises:
            InputError: the language cannot say it, or a space group without a composition.
        """
        ...

    def is_end(self, ids: Sequence[int]) -> bool:
        """Whether a crystal is complete with the last of these ids."""
        ...

    def text(self, ids: Iterable[int]) -> str:
        """Ids as a person reads them."""
        ...

    def ids(self, text: str) -> list[int]:
        """The inverse of `text`; any beginning of a text has ids."""
        ...


@cache
def get_language(name: str) -> Language:
    """The language of that name.

    Raises:
        InputError: there is none.
    """
    if name == "cif":
        return CifLanguage()
    if name == "orbits":
        from crystallm.orbits.language import OrbitsLanguage

        language: Language = OrbitsLanguage()
        return language
    raise InputError(f"no language {name[:40]!r}: there are {' and '.join(NAMES)}")
