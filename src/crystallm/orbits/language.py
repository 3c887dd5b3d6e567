"""Our language of crystals: canonical description <-> tokens.

A text says only what symmetry leaves free, in this order:

    <crystal>  composition of the conventional cell      Ti 2 O 4
               space group                               (P4_2/mnm)
               orbits: element and Wyckoff position      Ti 2a O 4f
               the cell: volume, ratios, angles          V0 .0 c-9 .2
               free coordinates, orbit by orbit          0.30 5'
    <end>

The numbers of the cell (see `descriptions`) are told as tens (rounded down: -7 is V-1 .3) and the rest. A
coordinate is hundredths and thousandths of a cell edge. Counts from 100 on take a token for the hundreds.

Refuses to know networks and sampling, and how a structure is described: `descriptions` does.
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
    TENS,
    TOLD,
    Families,
    families,
    token_index,
    vocabulary,
    wyckoff_labels,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pymatgen.core import Structure


def _at(place: int, message: str) -> TextError:
    """An error at a token, counted from 1."""
    error = TextError(f"token {place}: {message}")
    error.line = place
    return error


def text(ids: Iterable[int]) -> str:
    """Tokens with a blank between them.

    Raises:
        TextError: an id that the vocabulary does not hold.
    """
    tokens = vocabulary()
    ids = list(ids)
    for position, i in enumerate(ids, 1):
        if not 0 <= i < len(tokens):
            raise _at(position, f"no token has id {i}; ids run from 0 to {len(tokens) - 1}")
    return " ".join(tokens[i] for i in ids)


def ids(text: str) -> list[int]:
    """The ids of a text as `text` writes it; blanks and line ends count alike.

    Raises:
        TextError: a word that is no token.
    """
    index = token_index()
    found = []
    for position, word in enumerate(text.split(), 1):
        if word not in index:
            raise _at(position, f"{word[:40]!r} is no token of the orbits language")
        found.append(index[word])
    return found


def _count_ids(symbol: str, count: int) -> list[int]:
    family = families()
    check_count(symbol, count)
    rest = [family.number + count % 100]
    return [family.hundreds + count // 100 - 1, *rest] if count >= 100 else rest


def composition_ids(composition: Iterable[tuple[str, int]]) -> list[int]:
    """Ids of a cell composition, in the order given.

    Raises:
        InputError: an element without a token, or a count that is not written.
    """
    index = token_index()
    return [
        i
        for symbol, count in composition
        for i in (index[elements.get(symbol).symbol], *_count_ids(symbol, count))
    ]


def prompt(composition: Iterable[tuple[str, int]] | None = None, space_group: int | None = None) -> list[int]:
    """The beginning of a text: nothing, a cell composition, or a composition and a space group.

    Raises:
        InputError: an element without a token, a count that is not written, no such space group, or a space
            group without a composition.
    """
    family = families()
    found = [family.start]
    if composition is None:
        if space_group is not None:
            raise InputError(f"space group {space_group} without a formula: give one, such as TiO2")
        return found
    counts = dict(composition)
    if not counts:
        raise InputError("a composition without an element: write one, such as Na4Cl4")
    order = elements.electronegativity_order(counts)
    found += composition_ids((symbol, counts[symbol]) for symbol in order)
    if space_group is not None:
        found.append(family.group + space_groups.get(space_group).number - 1)
    return found


def to_ids(description: Description) -> list[int]:
    """Ids of a crystal, from `<crystal>` to `<end>`.

    Raises:
        InputError: an element, a count, a volume, a ratio or an angle of the cell that this language does not
            write.
    """
    family, index = families(), token_index()
    group = space_groups.get(description.space_group)
    found = prompt(description.composition, description.space_group)
    for orbit in description.orbits:
        found += [index[orbit.element], index[orbit.label]]
    for name, value in zip(group.free_cell, description.cell, strict=True):
        tokens, written = TENS[name]
        tens, rest = divmod(value, 10)
        if tens not in written:
            raise InputError(_beyond(name, value))
        found += [getattr(family, tokens) + tens - written[0], family.rest + rest]
    for orbit in description.orbits:
        for value in orbit.coordinates:
            found += [family.coarse + value // 10, family.fine + value % 10]
    return [*found, family.end]


def _beyond(name: str, value: int) -> str:
    """What to say of a number of the cell that has no token."""
    if len(name) > 1:
        return f"cell angle of {value / 10}°: this language writes {ANGLES[0]} to {ANGLES[-1]}°"
    written = TENS[name][1]
    least, most = (factor_of(steps) for steps in (10 * written[0], 10 * written[-1] + 9))
    bounds = f"this language writes {least:.3g} to {most:.3g}"
    factor = factor_of(value)
    if name == "a":
        return f"cell volume of {factor:.4g} times that of its atoms: {bounds} times"
    return f"cell with {name}/a of {factor:.4g}: {bounds}"


class _Reader:
    """Takes ids one by one and complains with their place."""

    def __init__(self, ids: Iterable[int]) -> None:
        self.ids = list(ids)
        self.place = 0

    def peek(self, family: str) -> bool:
        """Whether the next id belongs to a family."""
        bounds = families()
        field = Families._fields.index(family)
        return self.place < len(self.ids) and bounds[field] <= self.ids[self.place] < bounds[field + 1]

    def take(self, family: str, what: str) -> int:
        """The next id's index within its family."""
        if not self.peek(family):
            raise self.error(f"{what} expected")
        self.place += 1
        return self.ids[self.place - 1] - families()[Families._fields.index(family)]

    def error(self, message: str) -> TextError:
        """The next token is wrong."""
        tokens = vocabulary()
        if self.place >= len(self.ids):
            error = TextError(f"the text ends after {self.place} tokens: {message}")
            error.line = self.place
            return error
        i = self.ids[self.place]
        name = repr(tokens[i]) if 0 <= i < len(tokens) else f"id {i}"
        return _at(self.place + 1, f"{message}, not {name}")

    def refuse(self, message: str) -> TextError:
        """The token just taken is wrong."""
        return _at(self.place, message)


def _opening(read: _Reader) -> tuple[dict[str, int], int]:
    """Read composition and space group."""
    symbols = elements.symbols()
    read.take("start", "<crystal>")
    composition: dict[str, int] = {}
    while not composition or read.peek("element"):
        symbol = symbols[read.take("element", "an element")]
        if symbol in composition:
            raise read.refuse(f"{symbol} stands twice in the composition")
        hundreds = read.take("hundreds", "a count") + 1 if read.peek("hundreds") else 0
        count = 100 * hundreds + read.take("number", "a count")
        if not count:
            raise read.refuse(f"0 atoms of {symbol}: a count from 1 expected")
        composition[symbol] = count
    return composition, read.take("group", "a space group") + 1


def from_ids(ids: Iterable[int]) -> Description:
    """Read the ids of a crystal.

    The composition is taken as it stands: whether the orbits add up to it is for `validity` to say.

    Raises:
        TextError: what is wrong and at which token.
    """
    read = _Reader(ids)
    symbols, labels = elements.symbols(), wyckoff_labels()
    composition, number = _opening(read)
    group = space_groups.get(number)
    pairs: list[tuple[str, str]] = []
    while not pairs or read.peek("element"):
        symbol = symbols[read.take("element", "an element")]
        label = labels[read.take("label", "a Wyckoff position")]
        if label not in group.by_label:
            raise read.refuse(f"{group.symbol} has no Wyckoff position {label}")
        if not group.by_label[label].free and any(label == other for _, other in pairs):
            raise read.refuse(f"position {label} of {group.symbol} has no room for two orbits")
        pairs.append((symbol, label))
    cell = []
    for name in group.free_cell:
        tokens, written = TENS[name]
        what = TOLD.get(name, f"cell angle {name}")
        tens = read.take(tokens, what) + written[0]
        cell.append(10 * tens + read.take("rest", f"rest of {what}"))
    orbits = []
    for symbol, label in pairs:
        values = []
        for axis in group.by_label[label].free:
            coarse = read.take("coarse", f"coordinate {'xyz'[axis]} of {symbol} on {label}")
            values.append(10 * coarse + read.take("fine", "thousandths"))
        orbits.append(Orbit(symbol, label, tuple(values)))
    read.take("end", "<end>")
    if read.place < len(read.ids):
        raise read.error("nothing after <end>")
    return Description(tuple(composition.items()), group.number, tuple(orbits), tuple(cell))


class OrbitsLanguage:
    """This module behind the protocol of `language`."""

    name = "orbits"

    def vocabulary(self) -> tuple[str, ...]:
        """All tokens, in the order of their ids."""
        return vocabulary()

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The run of ids that, once generated, ends a crystal."""
        return (families().end,)

    @property
    def light_ids(self) -> tuple[int, ...]:
        """Elements and counts, which a prompt gives and the rules spread over the orbits, and last digits."""
        family = families()
        return (
            *range(family.element, family.group),
            *range(family.rest, family.coarse),
            *range(family.fine, family.size),
        )

    def is_end(self, ids: Sequence[int]) -> bool:
        """Whether ids end with the end of a crystal."""
        return bool(ids) and ids[-1] == families().end

    def encode(self, structure: Structure, symprec: float = 0.1) -> list[int]:
        """Ids of a structure; see `describe` for errors."""
        return to_ids(describe(structure, symprec))

    def opening(self, ids: Sequence[int]) -> tuple[dict[str, int], int]:
        """Composition and number of the space group that a text begins with; see `from_ids` for errors."""
        return _opening(_Reader(ids))

    def decode(self, ids: Iterable[int]) -> Structure:
        """The structure that ids stand for; see `from_ids` and `to_structure` for errors."""
        return to_structure(from_ids(ids))

    def standard_text(self, ids: Iterable[int]) -> str:
        """The standard text of what ids stand for, with the space group as written."""
        return to_text(from_ids(ids))

    def prompt(
        self, composition: Iterable[tuple[str, int]] | None = None, space_group: int | None = None
    ) -> list[int]:
        """The beginning of a text for what was asked."""
        return prompt(composition, space_group)

    def text(self, ids: Iterable[int]) -> str:
        """Tokens with a blank between them."""
        return text(ids)

    def ids(self, text: str) -> list[int]:
        """The ids of a text."""
        return ids(text)
