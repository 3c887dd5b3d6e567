"""CifLanguage: the published language behind the Language protocol."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from crystallm.cif import tokenizer
from crystallm.errors import InputError, TextError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pymatgen.core import Structure


OPENING = 1000
"""Tokens within which a text of the published language has named its space group, whatever its elements."""


class CifLanguage:
    """The published language: CIF text, one token a keyword, element, space group, digit or sign."""

    name = "cif"

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Two ends of line in a row."""
        return tuple(tokenizer.encode("\n\n"))

    @property
    def light_ids(self) -> tuple[int, ...]:
        """None: what is given and what is noise share their tokens with the rest."""
        return ()

    def vocabulary(self) -> tuple[str, ...]:
        """The 371 published tokens."""
        return tokenizer.vocabulary()

    def encode(self, structure: Structure, symprec: float = 0.1) -> list[int]:
        """Ids of the structure's standard text.

        Raises:
            InputError: as `cif.to_text`, or a structure in P4_222, P6 or P432, which have no token.
            TextError: as `cif.to_text`.
        """
        from crystallm.cif import parser, writer

        text = writer.to_text(structure, symprec)
        ids = tokenizer.encode(text)
        if tokenizer.UNKNOWN in ids:
            _refuse_group(parser.parse(text).space_group)
        return ids

    def opening(self, ids: Sequence[int]) -> tuple[dict[str, int], int]:
        """Composition of the head line and number of the printed group.

        Raises:
            TextError: the text has no such lines.
        """
        from crystallm.cif import block
        from crystallm.crystallography import space_groups

        text = tokenizer.decode(ids[:OPENING])
        group = re.search(rf"^{block.GROUP} (\S+)$", text, re.MULTILINE)
        composition = re.match(r"data_((?:[A-Z][a-z]?[1-9]\d*)+)$", text, re.MULTILINE)
        if group is None or composition is None:
            raise TextError(f"a text without a composition or a space group: {text[:40]!r}")
        counts = re.findall(r"([A-Z][a-z]?)(\d+)", composition[1])
        return {symbol: int(n) for symbol, n in counts}, space_groups.get(group[1]).number

    def decode(self, ids: Iterable[int]) -> Structure:
        """The structure of a text's ids.

        Raises:
            TextError: as `cif.to_structure`, or an id outside the vocabulary.
        """
        from crystallm.cif import standard_structure

        try:
            text = tokenizer.decode(ids)
        except InputError as error:
            raise TextError(str(error)) from None
        return standard_structure.to_structure(text)

    def standard_text(self, ids: Iterable[int]) -> str:
        """The text itself: it is the standard one."""
        return self.text(ids)

    def prompt(
        self, composition: Iterable[tuple[str, int]] | None = None, space_group: int | None = None
    ) -> list[int]:
        """`data_`, the head line, or all up to the line of the space group.

        Raises:
            InputError: an element or space group without a token, or a space group without a composition.
        """
        from crystallm.cif import writer

        if composition is None:
            if space_group is not None:
                raise InputError(f"space group {space_group} without a formula: give one, such as TiO2")
            return tokenizer.encode("data_")
        counts = dict(composition)
        lines = [writer.head(counts.items())]
        if space_group is not None:
            from crystallm.crystallography import space_groups

            symbol = space_groups.get(space_group).symbol
            if symbol not in tokenizer.space_groups():
                _refuse_group(symbol)
            lines += [*writer.properties(counts), writer.group_line(symbol)]
        return tokenizer.encode("\n".join(lines) + "\n")

    def is_end(self, ids: Sequence[int]) -> bool:
        """Whether the last two ids are ends of line."""
        return tuple(ids[-2:]) == self.end_ids

    def text(self, ids: Iterable[int]) -> str:
        """The standard text."""
        return tokenizer.decode(ids)

    def ids(self, text: str) -> list[int]:
        """Ids of any text."""
        return tokenizer.encode(text)


def _refuse_group(symbol: str) -> None:
    raise InputError(
        f"the language 'cif' has no token for the space group {symbol}: the published vocabulary lacks "
        "P4_222, P6 and P432; the language 'orbits' has all 230"
    )
