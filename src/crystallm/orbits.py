"""Our language of crystals: structure <-> canonical description <-> tokens.

A text says only what symmetry leaves free, in this order:

    <crystal>  composition of the conventional cell      Ti 2 O 4
               space group                               (P4_2/mnm)
               orbits: element and Wyckoff position      Ti 2a O 4f
               the cell: volume, ratios, angles          V0 .0 c-9 .2
               free coordinates, orbit by orbit          0.30 5'
    <end>

The cell is told beside its atoms, in steps of which 200 are a factor of e (one is 0.5 %). With V its volume
and V0 the sum of the volumes of the composition's atoms (`elements.Element.volume`), and of the parameters
that the group leaves free,

    a                    tells round(200 ln(V / V0))
    b, c                 tell round(200 ln(b / a)), round(200 ln(c / a))
    alpha, beta, gamma   tell tenths of a degree

as tens (rounded down: -7 is V-1 .3) and the rest. So a = (V / (b/a * c/a * f))^(1/3), where a length that the
group ties to a has the ratio 1 and f = sqrt(1 - cos^2 alpha - cos^2 beta - cos^2 gamma + 2 cos alpha cos beta
cos gamma).

A coordinate is hundredths and thousandths of a cell edge. Counts from 100 on take a token for the hundreds.

Of the equivalent descriptions of a crystal the text tells the canonical one (see `canonical`), with elements
by rising electronegativity and orbits sorted by (element, letter, coordinates).

This module refuses to know networks and sampling. It imports pymatgen and spglib only where a structure comes
or goes.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crystallm import canonical, elements, spacegroups
from crystallm.errors import InputError, TextError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pymatgen.core import Structure

    from crystallm.spacegroups import Floats, SpaceGroup

STEPS = canonical.STEPS  # coordinates are written in thousandths of a cell edge
MAX_COUNT = 3999  # atoms of one element in a cell
SCALE = 200  # steps of a volume or a ratio to a factor of e
ANGLES = range(10, 171)  # whole degrees: what `validity` calls sensible
TENS = {
    "a": ("volume", range(-90, 91)),  # tens of steps: 0.011 to 94 times the volume of the atoms
    "b": ("ratio_b", range(-75, 76)),  # 0.024 to 44
    "c": ("ratio_c", range(-75, 76)),
    "alpha": ("angle", ANGLES),
    "beta": ("angle", ANGLES),
    "gamma": ("angle", ANGLES),
}
"""The family of the first token of each cell parameter, and which tens it tells."""
_TOLD = {"a": "cell volume", "b": "cell ratio b/a", "c": "cell ratio c/a"}  # what that is, but for angles


class Orbit(NamedTuple):
    """Atoms of one element on one Wyckoff position.

    `label` is multiplicity and letter, '4c'; `coordinates` are the values of the position's free parameters,
    in thousandths of a cell edge, 0 to 999.
    """

    element: str
    label: str
    coordinates: tuple[int, ...]


@dataclass(frozen=True)
class Description:
    """A crystal in the canonical form of this language.

    Attributes:
        composition: (element, count in the conventional cell) as the text begins.
        space_group: number.
        orbits: in canonical order.
        cell: a number for each free cell parameter, in the order of `SpaceGroup.free_cell`: for a, steps of
            the volume, round(200 ln(V / V0)); for b and c, steps of b/a and c/a; for angles, tenths of a
            degree (see the head of this module).
    """

    composition: tuple[tuple[str, int], ...]
    space_group: int
    orbits: tuple[Orbit, ...]
    cell: tuple[int, ...]


# ---------------------------------------------------------------------------------------------- tokens


class Families(NamedTuple):
    """First id of each family of tokens; a family ends where the next begins."""

    start: int
    end: int
    element: int
    hundreds: int
    number: int
    group: int
    label: int
    volume: int
    ratio_b: int
    ratio_c: int
    angle: int
    rest: int
    coarse: int
    fine: int
    size: int


@cache
def _labels() -> tuple[str, ...]:
    found = {w.label for n in range(1, 231) for w in spacegroups.get(n).wyckoff}
    return tuple(sorted(found, key=lambda label: (int(label[:-1]), label[-1] == "A", label[-1])))


@cache
def vocabulary() -> tuple[str, ...]:
    """All tokens, in the order of their ids."""
    return tuple(itertools.chain.from_iterable(_family_tokens()))


def _family_tokens() -> Iterator[Sequence[str]]:
    yield ("<crystal>",)
    yield ("<end>",)
    yield elements.symbols()
    yield [f"+{100 * i}" for i in range(1, MAX_COUNT // 100 + 1)]
    yield [str(i) for i in range(100)]
    yield [f"({symbol})" for symbol in spacegroups.symbols()]
    yield _labels()
    for sign, name in zip("Vbc", "abc", strict=True):
        yield [f"{sign}{i}" for i in TENS[name][1]]
    yield [f"{i}°" for i in ANGLES]
    yield [f".{i}" for i in range(10)]
    yield [f"0.{i:02d}" for i in range(100)]
    yield [f"{i}'" for i in range(10)]


@cache
def families() -> Families:
    """Where each family of tokens begins in the vocabulary."""
    sizes = [len(tokens) for tokens in _family_tokens()]
    return Families(*itertools.accumulate(sizes, initial=0))


@cache
def _index() -> dict[str, int]:
    return {token: i for i, token in enumerate(vocabulary())}


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
    index = _index()
    found = []
    for position, word in enumerate(text.split(), 1):
        if word not in index:
            raise _at(position, f"{word[:40]!r} is no token of the orbits language")
        found.append(index[word])
    return found


def _check_count(symbol: str, count: int) -> None:
    if not 0 < count <= MAX_COUNT:
        raise InputError(f"{count} atoms of {symbol} in a cell: this language writes 1 to {MAX_COUNT}")


def _count_ids(symbol: str, count: int) -> list[int]:
    family = families()
    _check_count(symbol, count)
    rest = [family.number + count % 100]
    return [family.hundreds + count // 100 - 1, *rest] if count >= 100 else rest


def composition_ids(composition: Iterable[tuple[str, int]]) -> list[int]:
    """Ids of a cell composition, in the order given.

    Raises:
        InputError: an element without a token, or a count that is not written.
    """
    index = _index()
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
        found.append(family.group + spacegroups.get(space_group).number - 1)
    return found


def to_ids(description: Description) -> list[int]:
    """Ids of a crystal, from `<crystal>` to `<end>`.

    Raises:
        InputError: an element, a count, a volume, a ratio or an angle of the cell that this language does not
            write.
    """
    family, index = families(), _index()
    group = spacegroups.get(description.space_group)
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
    least, most = (_power(steps) for steps in (10 * written[0], 10 * written[-1] + 9))
    bounds = f"this language writes {least:.3g} to {most:.3g}"
    factor = _power(value)
    if name == "a":
        return f"cell volume of {factor:.4g} times that of its atoms: {bounds} times"
    return f"cell with {name}/a of {factor:.4g}: {bounds}"


def _power(steps: int) -> float:
    """The factor that so many steps are."""
    return math.exp(steps / SCALE)


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
    symbols, labels = elements.symbols(), _labels()
    composition, number = _opening(read)
    group = spacegroups.get(number)
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
        what = _TOLD.get(name, f"cell angle {name}")
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


# ------------------------------------------------------------------------------------------ structures


def to_structure(description: Description) -> Structure:
    """The conventional cell of a description as a pymatgen structure.

    Raises:
        TextError: the cell is flat, or an orbit's coordinates put it on a position of lower multiplicity.
    """
    from pymatgen.core import Lattice, Structure

    parameters = _parameters(description)
    images = _images(description)
    species = [symbol for symbol, points in images for _ in points]
    return Structure(Lattice.from_parameters(*parameters), species, np.vstack([p for _, p in images]))


def to_text(description: Description) -> str:
    """The standard text (see `cif`) of a description, with the space group as it was written.

    Raises:
        TextError: as `to_structure`, or less than one formula unit.
    """
    from crystallm import cif

    group = spacegroups.get(description.space_group)
    images = _images(description)
    counts: dict[str, int] = {}
    for symbol, points in images:
        counts[symbol] = counts.get(symbol, 0) + len(points)
    points_of = [(symbol, points.tolist()) for symbol, points in images]
    return cif.write(counts, group.symbol, group.number, _parameters(description), points_of)


def _parameters(description: Description) -> tuple[float, float, float, float, float, float]:
    """All cell parameters (Å, degrees) of a description, checked."""
    group = spacegroups.get(description.space_group)
    return cell_parameters(description.composition, group, description.cell)


def volume_of_atoms(composition: Iterable[tuple[str, int]]) -> float:
    """V0, the sum of the volumes of a composition's atoms, Å^3."""
    return sum(count * elements.get(symbol).volume for symbol, count in composition)


def cell_parameters(
    composition: Iterable[tuple[str, int]], group: SpaceGroup, cell: Iterable[int]
) -> tuple[float, float, float, float, float, float]:
    """All cell parameters a, b, c (Å), alpha, beta, gamma (degrees) of what a text tells.

    Args:
        composition: (element, count in the conventional cell).
        group: of the crystal.
        cell: see `Description`.

    Raises:
        TextError: no cell has such angles.
    """
    told = dict(zip(group.free_cell, cell, strict=True))
    volume = volume_of_atoms(composition) * _power(told["a"])
    free = {name: _power(value) if len(name) == 1 else value / 10 for name, value in told.items()}
    _, b, c, *angles = group.complete_cell({**free, "a": 1.0})  # b / a and c / a
    a = (volume / (b * c * math.sqrt(_check_cell(angles)))) ** (1 / 3)
    return a, a * b, a * c, angles[0], angles[1], angles[2]


def _images(description: Description) -> list[tuple[str, Floats]]:
    """Element and all points [multiplicity, 3] of each orbit, checked."""
    group = spacegroups.get(description.space_group)
    found = []
    for orbit in description.orbits:
        position = group.by_label[orbit.label]
        images = group.orbit(position.point([value / STEPS for value in orbit.coordinates]))
        if len(images) != position.multiplicity:
            raise TextError(
                f"{orbit.element} at {tuple(v / STEPS for v in orbit.coordinates)} lies on a position of "
                f"multiplicity {len(images)} of {group.symbol}, not on {orbit.label}"
            )
        found.append((orbit.element, images))
    return found


def _check_cell(angles: Sequence[float]) -> float:
    """(V / abc)^2 of a cell with these angles (degrees), which must be positive."""
    x, y, z = (math.cos(math.radians(angle)) for angle in angles)
    square = 1 - (x * x + y * y + z * z) + 2 * x * y * z
    if square <= 1e-6:
        raise TextError(f"no cell has the angles {tuple(angles)} degrees")
    return square


def describe(structure: Structure, symprec: float = 0.1) -> Description:
    """The canonical description of a structure.

    Args:
        structure: ordered, any cell.
        symprec: distance tolerance of spglib (Å) with which symmetry is sought.

    Raises:
        TextError: spglib finds no symmetry, or an orbit that no Wyckoff position holds.
        InputError: no atom, too many, or one that is not fully there; an element without a token; a number
            that is none.
    """
    if not len(structure):
        raise InputError("no atom: this language writes crystals of at least one")
    if not structure.is_ordered:
        raise InputError(
            f"{structure.formula}: sites shared by elements or partly empty; this language writes ordered "
            "crystals only"
        )
    if not (np.isfinite(structure.lattice.matrix).all() and np.isfinite(structure.frac_coords).all()):
        raise InputError("a cell or coordinates that are no numbers")  # spglib would end the process
    found = symmetry(structure, symprec)
    atoms = [elements.SYMBOLS_BY_NUMBER[int(number) - 1] for number in found.std_types]
    return _describe(spacegroups.get(found.number), found.std_lattice, found.std_positions, atoms)


def symmetry(structure: Structure, symprec: float = 0.1) -> Any:
    """What spglib finds of an ordered structure with finite numbers.

    Raises:
        TextError: no symmetry.
        InputError: an element without a token.
    """
    import spglib

    numbers = [elements.get(str(species.symbol)).number for species in structure.species]
    cell: Any = (structure.lattice.matrix, structure.frac_coords, numbers)
    found = spglib.get_symmetry_dataset(cell, symprec=symprec, angle_tolerance=5)
    if found is None:
        raise TextError(f"spglib finds no symmetry at {symprec=} Å: are atoms on top of each other?")
    return found


def _describe(group: SpaceGroup, lattice: Any, positions: Floats, atoms: list[str]) -> Description:
    """Canonical description of a conventional cell in the setting of `spacegroups`."""
    counts = {symbol: atoms.count(symbol) for symbol in dict.fromkeys(atoms)}
    order = elements.electronegativity_order(counts)
    for symbol in order:
        _check_count(symbol, counts[symbol])
    items = []
    for rank, symbol in enumerate(order):
        points = positions[[i for i, atom in enumerate(atoms) if atom == symbol]]
        items += [(rank, index, point) for index, point in canonical.find_orbits(group, points)]
    lengths = np.linalg.norm(lattice, axis=1)
    a, b, c = lattice / lengths[:, None]
    angles = np.degrees(np.arccos(np.clip([b @ c, a @ c, a @ b], -1, 1)))
    composition = tuple((symbol, counts[symbol]) for symbol in order)
    volume = abs(float(np.linalg.det(lattice))) / volume_of_atoms(composition)
    factors = [volume, *(lengths[1:] / lengths[0])]
    told = [*(SCALE * np.log(factors)), *(10 * angles)]
    values = dict(zip(spacegroups.PARAMETERS, told, strict=True))
    result = Description(
        composition=composition,
        space_group=group.number,
        orbits=tuple(
            Orbit(order[rank], group.wyckoff[index].label, coordinates)
            for rank, index, coordinates in canonical.smallest(group, items)
        ),
        cell=tuple(round(float(values[name])) for name in group.free_cell),
    )
    for orbit in result.orbits:
        point = group.by_label[orbit.label].point([value / STEPS for value in orbit.coordinates])
        if len(group.orbit(point)) != group.by_label[orbit.label].multiplicity:
            raise TextError(
                f"{orbit.element} on {orbit.label} lies too close to a position of lower multiplicity"
            )
    return result


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
