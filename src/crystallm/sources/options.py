"""Options that name collections of structures. Imports pydantic only."""

from __future__ import annotations

from typing import Annotated, Literal

from crystallm.options import NOT_DECIDING, Flag, Options


class SourceOptions(Options):
    """The collection of structures that a command reads."""

    path: Annotated[str | None, NOT_DECIDING] = None
    """Folder or file of structures (see crystallm prepare --help), or an --out folder of another command."""


class KnownOptions(Options):
    """Reference structures, to report novelty."""

    known: Annotated[tuple[str, ...], Flag(several=True)] = ()
    """Folders or files of reference structures, of any kind that prepare reads."""


class ReadOptions(Options):
    """How CIFs are read before they are checked."""

    read_as: Literal["auto", "text"] = "auto"
    """text: check what a CIF prints, as the paper does; auto: the same for CIFs in the form of this package,
    while those of other programs are symmetrized first."""
