"""The orbits language: description <-> token ids, prompts, readable text.

A sequence encodes what symmetry leaves free, in this order:

    <crystal>  composition of the conventional cell      Ti 2 O 4
               space group                               (P4_2/mnm)
               orbits: element and Wyckoff position      Ti 2a O 4f
               the cell: volume, ratios, angles          V0 .0 c-9 .2
               free coordinates, orbit by orbit          0.30 5'
    <end>

Cell parameters (see `orbits.description`) are split into tens (rounded down: -7 is V-1 .3) and the rest, a
coordinate into hundredths and thousandths of a cell edge. Counts from 100 on take a token for the hundreds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystallm.crystallography import elements, space_groups
from crystallm.errors import InputError, TextError
from crystallm.orbits.description import (
    Description,
    Orbit,
    check_count,
    describe,
    factor_of,
    to_structure,
    to_text,
)
from crystallm.orbits.vocabulary import (
    ANGLES,
    PARAMETER_NAMES,
    TENS,
    Families,
    families,
    token_index,
    vocabulary,
    wyckoff_labels,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pymatgen.core import Structure


def _at(position: int, message: str) -> TextError:
    """Return an error at a token, counted from 1."""
    error = TextError(f"token {position}: {message}")
    error.line = position
    return error


def text(ids: Iterable[int]) -> str:
    """Return tokens with a blank between them. Raises TextError: an id outside the vocabulary."""
    tokens = vocabulary()
    ids = list(ids)
    for position, i in enumerate(ids, 1):
        if not 0 <= i < len(tokens):
            raise _at(position, f"no token has id {i}; ids run from 0 to {len(tokens) - 1}")
    return " ".join(tokens[i] for i in ids)


def ids(text: str) -> list[int]:
    """Return the ids of a text; blanks and line ends separate tokens.

    Raises:
        TextError: a word that is not a token.
    """
    index = token_index()
    result = []
    for position, word in enumerate(text.split(), 1):
        if word not in index:
            raise _at(position, f"{word[:40]!r} is not a token of the orbits language")
        result.append(index[word])
    return result


def _count_ids(symbol: str, count: int) -> list[int]:
    family = families()
    check_count(symbol, count)
    rest = [family.number + count % 100]
    return [family.hundreds + count // 100 - 1, *rest] if count >= 100 else rest


def composition_ids(composition: Iterable[tuple[str, int]]) -> list[int]:
    """Return the ids of a cell composition, in the order given.

    Raises:
        InputError: an element or a count without a token.
    """
    index = token_index()
    return [
        i
        for symbol, count in composition
        for i in (index[elements.get(symbol).symbol], *_count_ids(symbol, count))
    ]


def prompt(composition: Iterable[tuple[str, int]] | None = None, space_group: int | None = None) -> list[int]:
    """Return the ids of `<crystal>` and, where given, of a cell composition and a space group.

    Raises:
        InputError: an element or a count without a token, no such space group, or a space group without a
            composition.
    """
    family = families()
    result = [family.start]
    if composition is None:
        if space_group is not None:
            raise InputError(f"space group {space_group} without a formula: give one, such as TiO2")
        return result
    counts = dict(composition)
    if not counts:
        raise InputError("a composition without an element: write one, such as Na4Cl4")
    order = elements.electronegativity_order(counts)
    result += composition_ids((symbol, counts[symbol]) for symbol in order)
    if space_group is not None:
        result.append(family.group + space_groups.get(space_group).number - 1)
    return result


def to_ids(description: Description) -> list[int]:
    """Return the ids of a crystal, from `<crystal>` to `<end>`.

    Raises:
        InputError: an element, a count, or a volume, ratio or angle of the cell without a token.
    """
    family, index = families(), token_index()
    group = space_groups.get(description.space_group)
    result = prompt(description.composition, description.space_group)
    for orbit in description.orbits:
        result += [index[orbit.element], index[orbit.label]]
    for name, value in zip(group.free_cell, description.cell, strict=True):
        tokens, encoded = TENS[name]
        tens, rest = divmod(value, 10)
        if tens not in encoded:
            raise InputError(_beyond(name, value))
        result += [getattr(family, tokens) + tens - encoded[0], family.rest + rest]
    for orbit in description.orbits:
        for value in orbit.coordinates:
            result += [family.coarse + value // 10, family.fine + value % 10]
    return [*result, family.end]


def _beyond(name: str, value: int) -> str:
    """Return the message for a cell parameter without a token."""
    if len(name) > 1:
        return f"cell angle of {value / 10}°: this language has {ANGLES[0]} to {ANGLES[-1]}°"
    encoded = TENS[name][1]
    least, most = (factor_of(steps) for steps in (10 * encoded[0], 10 * encoded[-1] + 9))
    bounds = f"this language has {least:.3g} to {most:.3g}"
    factor = factor_of(value)
    if name == "a":
        return f"cell volume of {factor:.4g} times that of its atoms: {bounds} times"
    return f"cell with {name}/a of {factor:.4g}: {bounds}"


class _IdReader:
    """Read ids one by one; errors name the position."""

    def __init__(self, ids: Iterable[int]) -> None:
        self.ids = list(ids)
        self.position = 0

    def peek(self, family: str) -> bool:
        """Return whether the next id belongs to a family."""
        bounds = families()
        field = Families._fields.index(family)
        return self.position < len(self.ids) and bounds[field] <= self.ids[self.position] < bounds[field + 1]

    def take(self, family: str, what: str) -> int:
        """Take the next id; return its index within the family."""
        if not self.peek(family):
            raise self.error(f"{what} expected")
        self.position += 1
        return self.ids[self.position - 1] - families()[Families._fields.index(family)]

    def error(self, message: str) -> TextError:
        """Return the error for the next token."""
        tokens = vocabulary()
        if self.position >= len(self.ids):
            error = TextError(f"the text ends after {self.position} tokens: {message}")
            error.line = self.position
            return error
        i = self.ids[self.position]
        name = repr(tokens[i]) if 0 <= i < len(tokens) else f"id {i}"
        return _at(self.position + 1, f"{message}, not {name}")

    def error_before(self, message: str) -> TextError:
        """Return the error for the token just taken."""
        return _at(self.position, message)


def _read_prompt(read: _IdReader) -> tuple[dict[str, int], int]:
    """Read composition and space group; see `from_ids` for errors."""
    symbols = elements.symbols()
    read.take("start", "<crystal>")
    composition: dict[str, int] = {}
    while not composition or read.peek("element"):
        symbol = symbols[read.take("element", "an element")]
        if symbol in composition:
            raise read.error_before(f"{symbol} occurs twice in the composition")
        hundreds = read.take("hundreds", "a count") + 1 if read.peek("hundreds") else 0
        count = 100 * hundreds + read.take("number", "a count")
        if not count:
            raise read.error_before(f"0 atoms of {symbol}: a count from 1 expected")
        composition[symbol] = count
    return composition, read.take("group", "a space group") + 1


def from_ids(ids: Iterable[int]) -> Description:
    """Read the ids of a crystal; whether the orbits add up to the composition is not checked.

    Raises:
        TextError: gives the reason and the token.
    """
    read = _IdReader(ids)
    symbols, labels = elements.symbols(), wyckoff_labels()
    composition, number = _read_prompt(read)
    group = space_groups.get(number)
    pairs: list[tuple[str, str]] = []
    while not pairs or read.peek("element"):
        symbol = symbols[read.take("element", "an element")]
        label = labels[read.take("label", "a Wyckoff position")]
        if label not in group.by_label:
            raise read.error_before(f"{group.symbol} has no Wyckoff position {label}")
        if not group.by_label[label].free and any(label == placed for _, placed in pairs):
            raise read.error_before(f"position {label} of {group.symbol} has no room for two orbits")
        pairs.append((symbol, label))
    cell = []
    for name in group.free_cell:
        tokens, encoded = TENS[name]
        what = PARAMETER_NAMES.get(name, f"cell angle {name}")
        tens = read.take(tokens, what) + encoded[0]
        cell.append(10 * tens + read.take("rest", f"rest of {what}"))
    orbits = []
    for symbol, label in pairs:
        values = []
        for axis in group.by_label[label].free:
            coarse = read.take("coarse", f"coordinate {'xyz'[axis]} of {symbol} on {label}")
            values.append(10 * coarse + read.take("fine", "thousandths"))
        orbits.append(Orbit(symbol, label, tuple(values)))
    read.take("end", "<end>")
    if read.position < len(read.ids):
        raise read.error("nothing after <end>")
    return Description(tuple(composition.items()), group.number, tuple(orbits), tuple(cell))


def encode(structure: Structure, symprec: float = 0.1) -> list[int]:
    """Return the ids of a structure, from `<crystal>` to `<end>`.

    Args:
        structure: ordered, any cell.
        symprec: distance tolerance of the symmetry search, Å.
    """
    return to_ids(describe(structure, symprec))


def decode(ids: Iterable[int]) -> Structure:
    """Return the structure that ids describe, its conventional cell."""
    return to_structure(from_ids(ids))


class OrbitsLanguage:
    """The Language protocol for the orbits language: the functions of this module."""

    name = "orbits"

    slides = False
    """The context holds the whole sequence: its prefix is needed to the end."""

    writes_cif = False

    has_parameters = True

    typical_length = 60

    @property
    def digits(self) -> tuple[str, ...]:
        """The tokens with the hundredths of a coordinate."""
        family = families()
        return vocabulary()[family.coarse : family.fine]

    def vocabulary(self) -> tuple[str, ...]:
        """Return all tokens, in the order of their ids."""
        return vocabulary()

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The id of `<end>`."""
        return (families().end,)

    @property
    def low_weight_ids(self) -> tuple[int, ...]:
        """Elements and counts, which prompt and grammar give, and last digits."""
        family = families()
        return (
            *range(family.element, family.group),
            *range(family.rest, family.coarse),
            *range(family.fine, family.size),
        )

    def is_end(self, ids: Sequence[int]) -> bool:
        """Return whether the last id is `<end>`."""
        return bool(ids) and ids[-1] == families().end

    def encode(self, structure: Structure, symprec: float = 0.1) -> list[int]:
        """Return the ids of a structure; see `encode` of the module."""
        return encode(structure, symprec)

    def decode(self, ids: Iterable[int]) -> Structure:
        """Return the structure that ids describe; see `decode` of the module."""
        return decode(ids)

    def standard_text(self, ids: Iterable[int]) -> str:
        """Return the standard text, with the space group that the ids name; see `from_ids` for errors."""
        return to_text(from_ids(ids))

    def prompt(
        self, composition: Iterable[tuple[str, int]] | None = None, space_group: int | None = None
    ) -> list[int]:
        """Return the first ids of a crystal; see `prompt` of the module."""
        return prompt(composition, space_group)

    def template_prompt(
        self,
        composition: Iterable[tuple[str, int]],
        space_group: int,
        orbits: Iterable[tuple[str, str]],
    ) -> list[int]:
        """Return the ids up to the last orbit."""
        index = token_index()
        tokens = (token for orbit in orbits for token in orbit)
        return [*prompt(composition, space_group), *(index[token] for token in tokens)]

    def read_prompt(self, ids: Sequence[int]) -> tuple[dict[str, int], int]:
        """Return composition and number of the space group; see `from_ids` for errors."""
        return _read_prompt(_IdReader(ids))

    def ends_composition(self, token: int) -> bool:
        """Return whether a token is a space group, which follows the composition."""
        return self.is_group_token(token)

    def group_token(self, number: int) -> int | None:
        """Return the id of a space group."""
        return families().group + number - 1

    def is_group_token(self, token: int) -> bool:
        """Return whether a token is one of the 230 space groups."""
        family = families()
        return family.group <= token < family.label

    def group_is_next(self, ids: Sequence[int], allowed: Sequence[int] | None) -> bool:  # noqa: ARG002
        """Return whether all allowed tokens are space groups."""
        return bool(allowed) and all(self.is_group_token(token) for token in allowed or ())

    def token_roles(self, ids: Sequence[int]) -> list[str]:
        """Return what each token is about, by its family and by what came before."""
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

    def text(self, ids: Iterable[int]) -> str:
        """Return tokens with a blank between them."""
        return text(ids)

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text."""
        return ids(text)
