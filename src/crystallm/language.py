"""The Language protocol: crystals as token ids, and the languages by name.

A language encodes a crystal as token ids and decodes them. Networks, sampling and files work with ids and
leave their meaning to the language; which one it is matters to `cif`, `orbits`, `grammar` and
`generation.completion` alone. Does not depend on networks or on the grammar.
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

TOKEN_ROLES = ("composition", "space_group", "orbits", "cell", "coordinates")
"""What a token can be about, in the order of `orbits`; `cif` has the cell before the orbits."""


@runtime_checkable
class Language(Protocol):
    """Crystals as token ids, which run from 0 to len(vocabulary()) - 1."""

    @property
    def name(self) -> str:
        """`cif` or `orbits`; files and model cards name the language so."""
        ...

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The run of ids that ends a crystal."""
        ...

    @property
    def low_weight_ids(self) -> tuple[int, ...]:
        """Tokens with a lower loss weight: given by the prompt or the grammar, or close to noise."""
        ...

    @property
    def slides(self) -> bool:
        """Whether a sequence may outgrow the context, which then slides over it."""
        ...

    @property
    def writes_cif(self) -> bool:
        """Whether `text` is a CIF: validity then checks it as printed, rounding included."""
        ...

    @property
    def has_parameters(self) -> bool:
        """Whether `orbits.parameters` can read and shift the numbers of a sequence."""
        ...

    @property
    def typical_length(self) -> int:
        """Tokens that suffice for most small crystals."""
        ...

    @property
    def digits(self) -> tuple[str, ...]:
        """The tokens with the first digits of a coordinate."""
        ...

    def vocabulary(self) -> tuple[str, ...]:
        """Return the tokens in the order of their ids."""
        ...

    def encode(self, structure: Structure, symprec: float = 0.1) -> list[int]:
        """Return the ids of a structure, end included.

        Args:
            structure: ordered, any cell.
            symprec: distance tolerance of the symmetry search, Å.

        Raises:
            InputError: the language has no token for a part of it.
            TextError: it cannot be described as a crystal.
        """
        ...

    def decode(self, ids: Iterable[int]) -> Structure:
        """Return the structure that ids describe, its conventional cell.

        Raises:
            TextError: they describe no crystal, with the reason.
        """
        ...

    def standard_text(self, ids: Iterable[int]) -> str:
        """Return the standard text (see `cif`) of a crystal, with the space group that the ids name.

        Raises:
            TextError: the ids describe no crystal.
        """
        ...

    def prompt(
        self, composition: Iterable[tuple[str, int]] | None = None, space_group: int | None = None
    ) -> list[int]:
        """Return the first ids of a crystal of which this is known.

        Args:
            composition: (symbol, count) of the conventional cell; None leaves it to the network.
            space_group: number; None leaves it to the network.

        Raises:
            InputError: the language has no token for it, or a space group without a composition.
        """
        ...

    def template_prompt(
        self,
        composition: Iterable[tuple[str, int]],
        space_group: int,
        orbits: Iterable[tuple[str, str]],
    ) -> list[int]:
        """Return the longest prompt with this composition, group and orbits (element, Wyckoff label).

        Orbits are left out where the language has the cell before them.
        """
        ...

    def read_prompt(self, ids: Sequence[int]) -> tuple[dict[str, int], int]:
        """Return composition of the conventional cell and number of the space group: the inverse of `prompt`.

        Raises:
            TextError: the ids do not begin with both.
        """
        ...

    def is_end(self, ids: Sequence[int]) -> bool:
        """Return whether a crystal is complete with the last of these ids."""
        ...

    def ends_composition(self, token: int) -> bool:
        """Return whether a token, after a count, ends the composition."""
        ...

    def group_token(self, number: int) -> int | None:
        """Return the id of a space group; None if the language has none for it."""
        ...

    def is_group_token(self, token: int) -> bool:
        """Return whether a token is a space group."""
        ...

    def group_is_next(self, ids: Sequence[int], allowed: Sequence[int] | None) -> bool:
        """Return whether the space group comes next, given the allowed tokens (None: not known)."""
        ...

    def token_roles(self, ids: Sequence[int]) -> list[str]:
        """Return one of `TOKEN_ROLES` for each token of a whole crystal."""
        ...

    def text(self, ids: Iterable[int]) -> str:
        """Return ids as readable text."""
        ...

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text, or of any prefix of one: the inverse of `text`."""
        ...


@cache
def get_language(name: str) -> Language:
    """Return the language of that name.

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
