"""Known crystals with other elements as first crystals of a search."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from crystallm.errors import CrystallmError
from crystallm.generation.analogues import analogues_of
from crystallm.orbits import description

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.generation.interpretation import InterpretedRequest
    from crystallm.language import Language
    from crystallm.references.library import Library
    from crystallm.structure_search.policy import SearchPrompt
    from crystallm.structure_search.prefixes import Ids


class KnownStart(NamedTuple):
    """The token sequence of a crystal that is made of a known one.

    Attributes:
        ids: of the crystal.
        root: index of its prompt.
    """

    ids: Ids
    root: int


def known_starts(
    library: Library,
    plan: InterpretedRequest,
    roots: Sequence[SearchPrompt],
    language: Language,
    n: int,
    *,
    max_atoms: int | None = None,
) -> list[KnownStart]:
    """Return the most probable crystals made of known ones that begin as one of the prompts does.

    Args:
        roots: prompts of the search.
        n: largest number of crystals.
        max_atoms: largest number of atoms in a conventional cell; None: any.
    """
    starts = []
    for analogue in analogues_of(library, plan, n, max_atoms=max_atoms):
        try:
            ids = tuple(language.encode(description.to_structure(analogue.description)))
        except CrystallmError:  # this language cannot express it
            continue
        root = next((i for i, one in enumerate(roots) if ids[: len(one.prompt)] == tuple(one.prompt)), None)
        if root is not None:
            starts.append(KnownStart(ids, root))
    return starts
