"""The part of a crystal that each token describes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.language import Language


PARTS = ("composition", "space_group", "orbits", "cell", "coordinates")
"""In the order of the orbits language; the published one has the cell before the orbits."""


def parts(language: Language, ids: Sequence[int]) -> list[str]:
    """Return the part of each token of a complete sequence; the first belongs to the composition.

    Raises:
        InputError: unknown language.
    """
    if language.name == "orbits":
        return _orbits_parts(ids)
    if language.name == "cif":
        return _cif_parts(ids)
    raise InputError(f"the parts of the language {language.name!r} are not known")


def _orbits_parts(ids: Sequence[int]) -> list[str]:
    from crystallm.orbits.vocabulary import families

    family = families()
    roles = []
    in_orbits = False
    for token in ids:
        if family.group <= token < family.label:
            roles.append("space_group")
            in_orbits = True
        elif token < family.group and token != family.end:
            roles.append("orbits" if in_orbits else "composition")
        elif token == family.end or token >= family.coarse:
            roles.append("coordinates")
        else:
            roles.append("orbits" if token < family.volume else "cell")
    return roles


# By the first word of a line. Lines that follow from the composition alone belong to it, and so on.
_CIF_LINES = (
    ("_symmetry", "space_group"),
    ("_cell_formula_units", "composition"),
    ("_cell", "cell"),
    ("_chemical", "composition"),
    ("_atom_site", "orbits"),
)


def _cif_parts(ids: Sequence[int]) -> list[str]:
    from crystallm.cif import tokenizer

    roles: list[str] = []
    line: list[tuple[int, str]] = []  # position and text of each token of the current line
    loop = ""  # part of the current loop
    waiting: list[int] = []  # positions of `loop_` tokens, which belong to the next line
    for position, token in enumerate(ids):
        text = tokenizer.decode([token])
        roles.append("composition")
        line.append((position, text))
        if text != "\n" and position < len(ids) - 1:
            continue
        words = "".join(piece for _, piece in line).split(" ")
        first = words[0].strip()
        complete, line = line, []
        if first == "loop_":
            waiting = [i for i, _ in complete]
            loop = ""
            continue
        part = next((part for start, part in _CIF_LINES if first.startswith(start)), "")
        if part:
            loop = part
        elif loop == "orbits":  # a row: symbol, label, multiplicity; then numbers
            n_blanks = 0 if len(complete) > 1 else 3  # the text ends with an empty line
            for i, piece in complete:
                roles[i] = "orbits" if n_blanks < 3 else "coordinates"
                n_blanks += piece == " "
            continue
        for i in (*waiting, *(i for i, _ in complete)):
            roles[i] = part or loop or "composition"
        waiting = []
    return roles
