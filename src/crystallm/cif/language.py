"""CifLanguage: the Language protocol for the published language."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from crystallm.cif import block, tokenizer
from crystallm.errors import InputError, TextError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pymatgen.core import Structure

MAX_PROMPT = 1000
"""Tokens within which a text has named its space group, whatever its elements."""


class CifLanguage:
    """The published language: CIF texts, one token per keyword, element, space group, digit or sign."""

    name = "cif"

    slides = True
    """Numbers with all their digits make texts longer than the context."""

    writes_cif = True

    has_parameters = False

    typical_length = 900

    digits = tuple("0123456789")

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The ids of two line ends."""
        return tuple(tokenizer.encode("\n\n"))

    @property
    def low_weight_ids(self) -> tuple[int, ...]:
        """No ids: given tokens and noisy digits share their tokens with the rest."""
        return ()

    def vocabulary(self) -> tuple[str, ...]:
        """Return the 371 published tokens."""
        return tokenizer.vocabulary()

    def encode(self, structure: Structure, symprec: float = 0.1) -> list[int]:
        """Return the ids of the structure's standard text.

        Raises:
            InputError: as `cif.to_text`, or the group is P4_222, P6 or P432, which have no token.
            TextError: as `cif.to_text`.
        """
        from crystallm.cif import parser, writer

        text = writer.to_text(structure, symprec)
        ids = tokenizer.encode(text)
        if tokenizer.UNKNOWN in ids:
            raise missing_group(parser.parse(text).space_group)
        return ids

    def decode(self, ids: Iterable[int]) -> Structure:
        """Return the structure of a text's ids.

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
        """Return the text itself: it is the standard one."""
        return self.text(ids)

    def prompt(
        self, composition: Iterable[tuple[str, int]] | None = None, space_group: int | None = None
    ) -> list[int]:
        """Return the ids of `data_`, of the head line, or of all up to the line of the space group.

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
                raise missing_group(symbol)
            lines += [*writer.properties(counts), writer.group_line(symbol)]
        return tokenizer.encode("\n".join(lines) + "\n")

    def template_prompt(
        self,
        composition: Iterable[tuple[str, int]],
        space_group: int,
        orbits: Iterable[tuple[str, str]],  # noqa: ARG002 - the cell comes before them
    ) -> list[int]:
        """Return the ids up to the line of the space group."""
        return self.prompt(composition, space_group)

    def read_prompt(self, ids: Sequence[int]) -> tuple[dict[str, int], int]:
        """Return the composition of the head line and the number of the printed group.

        Raises:
            TextError: the text lacks one of these lines.
        """
        from crystallm.crystallography import space_groups

        text = tokenizer.decode(ids[:MAX_PROMPT])
        group = re.search(rf"^{block.GROUP} (\S+)$", text, re.MULTILINE)
        composition = re.match(r"data_((?:[A-Z][a-z]?[1-9]\d*)+)$", text, re.MULTILINE)
        if group is None or composition is None:
            raise TextError(f"no composition or no space group in the text: {text[:40]!r}")
        counts = re.findall(r"([A-Z][a-z]?)(\d+)", composition[1])
        return {symbol: int(n) for symbol, n in counts}, space_groups.get(group[1]).number

    def is_end(self, ids: Sequence[int]) -> bool:
        """Return whether the last two ids are ends of line."""
        return tuple(ids[-2:]) == self.end_ids

    def ends_composition(self, token: int) -> bool:
        """Return whether a token is the end of the head line."""
        return token == self.end_ids[0]

    def group_token(self, number: int) -> int | None:
        """Return the id of a space group; None for P4_222, P6 and P432."""
        from crystallm.crystallography import space_groups

        return tokenizer.space_groups().get(space_groups.get(number).symbol)

    def is_group_token(self, token: int) -> bool:
        """Return whether a token is one of the 227 space groups."""
        return token in _group_tokens()

    def group_is_next(self, ids: Sequence[int], allowed: Sequence[int] | None) -> bool:  # noqa: ARG002
        """Return whether the ids end with the tag of the space group."""
        return tuple(ids[-2:]) == _group_tag()

    def token_roles(self, ids: Sequence[int]) -> list[str]:
        """Return what each token is about, line by line."""
        return _token_roles(ids)

    def text(self, ids: Iterable[int]) -> str:
        """Return the standard text."""
        return tokenizer.decode(ids)

    def ids(self, text: str) -> list[int]:
        """Return the ids of any text."""
        return tokenizer.encode(text)


@cache
def _group_tokens() -> frozenset[int]:
    return frozenset(tokenizer.space_groups().values())


@cache
def _group_tag() -> tuple[int, ...]:
    return tuple(tokenizer.encode(f"{block.GROUP} "))


_ROLES = (  # by the first word of a line; other lines follow from the composition
    ("_symmetry", "space_group"),
    ("_cell_formula_units", "composition"),
    ("_cell", "cell"),
    ("_chemical", "composition"),
    ("_atom_site", "orbits"),
)


def _token_roles(ids: Sequence[int]) -> list[str]:
    roles: list[str] = []
    line: list[tuple[int, str]] = []  # position and text of each token of the current line
    current_loop = ""  # role of the current loop
    waiting: list[int] = []  # positions of the tokens of `loop_`, which belong to what follows
    for position, token in enumerate(ids):
        text = tokenizer.decode([token])
        roles.append("composition")
        line.append((position, text))
        if text != "\n" and position < len(ids) - 1:
            continue
        first = "".join(piece for _, piece in line).split(" ")[0].strip()
        tokens, line = line, []
        if first == "loop_":
            waiting = [i for i, _ in tokens]
            current_loop = ""
            continue
        role = next((role for start, role in _ROLES if first.startswith(start)), "")
        if role:
            current_loop = role
        elif current_loop == "orbits":  # a row: symbol, label, multiplicity; then numbers
            n_blanks = 0 if len(tokens) > 1 else 3  # the end of the text is an empty line
            for i, piece in tokens:
                roles[i] = "orbits" if n_blanks < 3 else "coordinates"
                n_blanks += piece == " "
            continue
        for i in (*waiting, *(i for i, _ in tokens)):
            roles[i] = role or current_loop or "composition"
        waiting = []
    return roles


def missing_group(symbol: str) -> InputError:
    """Return the error for a space group without a token."""
    return InputError(
        f"the language 'cif' has no token for the space group {symbol}: the published vocabulary lacks "
        "P4_222, P6 and P432; the language 'orbits' has all 230"
    )
