"""What each token of a text is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.language import Language


PARTS = ("composition", "space_group", "orbits", "cell", "coordinates")
"""In the order of the orbits language; the published one has the cell before the orbits."""


def parts(language: Language, ids: Sequence[int]) -> list[str]:
    """The part that each token of a whole text belongs to; the first, which is given, to the composition.

    Raises:
        InputError: no such language.
    """
    if language.name == "orbits":
        return _orbits_parts(ids)
    if language.name == "cif":
        return _cif_parts(ids)
    raise InputError(f"the parts of the language {language.name!r} are not known")


def _orbits_parts(ids: Sequence[int]) -> list[str]:
    from crystallm.orbits.vocabulary import families

    family = families()
    found = []
    in_orbits = False
    for token in ids:
        if family.group <= token < family.label:
            found.append("space_group")
            in_orbits = True
        elif token < family.group and token != family.end:
            found.append("orbits" if in_orbits else "composition")
        elif token == family.end or token >= family.coarse:
            found.append("coordinates")
        else:
            found.append("orbits" if token < family.volume else "cell")
    return found


# By the first word of a line. What follows from the composition alone counts with it, and so on.
_CIF_LINES = (
    ("_symmetry", "space_group"),
    ("_cell_formula_units", "composition"),
    ("_cell", "cell"),
    ("_chemical", "composition"),
    ("_atom_site", "orbits"),
)


def _cif_parts(ids: Sequence[int]) -> list[str]:
    from crystallm.cif import tokenizer

    found: list[str] = []
    line: list[tuple[int, str]] = []  # tokens of the line at hand: place, text
    loop = ""  # what the loop at hand belongs to
    waiting: list[int] = []  # tokens of `loop_`, which belong to what follows
    for place, token in enumerate(ids):
        text = tokenizer.decode([token])
        found.append("composition")
        line.append((place, text))
        if text != "\n" and place < len(ids) - 1:
            continue
        words = "".join(piece for _, piece in line).split(" ")
        first = words[0].strip()
        places, line = line, []
        if first == "loop_":
            waiting = [at for at, _ in places]
            loop = ""
            continue
        part = next((part for start, part in _CIF_LINES if first.startswith(start)), "")
        if part:
            loop = part
        elif loop == "orbits":  # a row: symbol, label, multiplicity; then numbers
            n_blanks = 0 if len(places) > 1 else 3  # the end of the text is an empty line
            for at, piece in places:
                found[at] = "orbits" if n_blanks < 3 else "coordinates"
                n_blanks += piece == " "
            continue
        for at in (*waiting, *(at for at, _ in places)):
            found[at] = part or loop or "composition"
        waiting = []
    return found
