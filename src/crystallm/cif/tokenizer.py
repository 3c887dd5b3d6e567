"""The tokens of the published language: text <-> ids.

371 tokens (elements, digits, CIF keywords, symbols, space groups, `<unk>`) in the published order, so that
published weights work. The longest token wins, with one exception: what follows
`_symmetry_space_group_name_H-M ` is one token, a space group or `<unk>`. Any string has ids, whether or not
they describe a crystal.
"""

from __future__ import annotations

import json
import re
from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

UNKNOWN = 370
"""Id of `<unk>`."""

_GROUP_TAG = "_symmetry_space_group_name_H-M"
_GROUP_MARK = "_sg"
"""Ending that keeps the group `Pm` apart from the element `Pm` in the vocabulary; texts have it without."""

_BLANKS = re.compile(r"[ \t]+")
_MEMO_LINE = 160
"""Lines of a standard text are shorter; longer ones are not cached."""


@cache
def vocabulary() -> tuple[str, ...]:
    """Return the tokens in the order of their ids; space groups end in `_sg`."""
    return tuple(json.loads((files("crystallm.cif") / "vocabulary.json").read_text(encoding="ascii")))


@cache
def space_groups() -> dict[str, int]:
    """Return the ids of the 227 space groups with a token by symbol (P4_222, P6 and P432 have none)."""
    return {
        token.removesuffix(_GROUP_MARK): i
        for i, token in enumerate(vocabulary())
        if token.endswith(_GROUP_MARK)
    }


@cache
def _strings() -> dict[int, str]:
    """Return the text of each id."""
    return {i: token.removesuffix(_GROUP_MARK) for i, token in enumerate(vocabulary())}


class _Ids(dict[str, int]):
    """Ids by token; any other text is unknown."""

    def __missing__(self, piece: str) -> int:
        return UNKNOWN


@cache
def _scanner() -> tuple[re.Pattern[str], _Ids]:
    """Return the expression that cuts a line, and the id of each piece that is a token.

    Digits, points and blanks, most of any text, are tried first (no longer token starts with one); then the
    others, the longest first. What is left over is cut into words and single characters, which have no id.
    """
    ids = _Ids({token: i for i, token in enumerate(vocabulary()) if not token.endswith(_GROUP_MARK)})
    others = sorted((t for t in ids if not re.fullmatch(r"[0-9. ]", t)), key=len, reverse=True)
    return re.compile(r"[0-9. ]|" + "|".join(map(re.escape, others)) + r"|\w+|.", re.DOTALL), ids


def _cut(line: str) -> tuple[int, ...]:
    """Return the ids of one line, without its end."""
    scanner, ids = _scanner()
    if "  " in line or "\t" in line:
        line = _BLANKS.sub(" ", line)
    if _GROUP_TAG in line:
        before, tag, symbol = line.partition(_GROUP_TAG + " ")
        if tag and symbol.strip():
            group = space_groups().get(symbol.strip(), UNKNOWN)
            return (*_cut(before), ids[_GROUP_TAG], ids[" "], group)
    return tuple(map(ids.__getitem__, scanner.findall(line)))


_cut_cached = lru_cache(maxsize=1 << 16)(_cut)


def encode(text: str) -> list[int]:
    """Return the ids of any text, with `<unk>` for what has no token.

    Runs of blanks and tabs count as one blank. The three space groups without a token become `<unk>`.
    """
    newline = _scanner()[1]["\n"]
    ids: list[int] = []
    for line in text.split("\n"):
        ids += _cut_cached(line) if len(line) <= _MEMO_LINE else _cut(line)
        ids.append(newline)
    ids.pop()
    return ids


def forget() -> None:
    """Clear the cache of `encode`, at most 65,536 lines."""
    _cut_cached.cache_clear()


def decode(ids: Iterable[int]) -> str:
    """Return the text of ids.

    Raises:
        InputError: an id outside 0 ... 370.
    """
    try:
        return "".join(map(_strings().__getitem__, ids))
    except KeyError as error:
        raise InputError(
            f"token id {error.args[0]} is outside the vocabulary: ids run from 0 to {UNKNOWN}"
        ) from None
