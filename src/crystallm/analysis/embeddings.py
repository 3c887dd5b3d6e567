"""Learned embeddings of elements, numbers and space groups: tables, maps, nearest neighbours.

Tables have the original's form: the name of a token in the column `element`, of whatever kind, then a column
per component, `0` to `C - 1`; elements by atomic number, space groups with the suffix `_sg`.

    atoms          elements with a token
    digits         of `cif`: 0 to 9; of `orbits`: the hundredths of a cell edge, 0.00 to 0.99
    space-groups   space groups with a token, by number

Maps show the first two principal components of the vectors, normalized to length 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from crystallm.crystallography.space_groups import Floats
from crystallm.errors import InputError
from crystallm.models.model import Model

KINDS = ("atoms", "digits", "space-groups")
SYSTEMS = (
    (2, "triclinic"), (15, "monoclinic"), (74, "orthorhombic"), (142, "tetragonal"), (167, "trigonal"),
    (194, "hexagonal"), (230, "cubic"),
)  # fmt: skip
"""Last space group number of each crystal system."""


def vectors(model: Model, of: str) -> tuple[list[str], Floats]:
    """Return names and embeddings [n_tokens, C] of the tokens of a kind.

    Raises:
        InputError: `of` is none of `KINDS`.
    """
    names, ids = _tokens(model, of)
    table = model.network.transformer.wte.weight.detach().float().cpu()
    return names, np.asarray(table[ids].numpy(), dtype=np.float64)


def _tokens(model: Model, of: str) -> tuple[list[str], list[int]]:
    from crystallm.crystallography import elements, space_groups

    vocabulary = {token: i for i, token in enumerate(model.language.vocabulary())}
    if of == "atoms":
        symbols = sorted(elements.symbols(), key=lambda symbol: elements.get(symbol).number)
        return list(symbols), [vocabulary[symbol] for symbol in symbols]
    if of == "digits":
        digits = model.language.digits
        return list(digits), [vocabulary[digit] for digit in digits]
    if of == "space-groups":
        tokens = {n: token for n in range(1, 231) if (token := model.language.group_token(n)) is not None}
        return [f"{space_groups.get(n).symbol}_sg" for n in tokens], list(tokens.values())
    raise InputError(f"of = {of!r}: give one of {', '.join(KINDS)}")


def rows(names: Sequence[str], table: Floats) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return a row per token, and the columns with their pyarrow types."""
    columns = {"element": "string"} | {str(i): "float64" for i in range(table.shape[1])}
    token_rows = [
        {"element": name} | {str(i): float(x) for i, x in enumerate(vector)}
        for name, vector in zip(names, table, strict=True)
    ]
    return token_rows, columns


def project(table: Floats) -> Floats:
    """Return the first two principal components [n_tokens, 2] of the normalized vectors [n_tokens, C]."""
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    directions = table / np.where(lengths > 0, lengths, 1.0)
    centred = directions - directions.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2]
    # The sign of an axis is arbitrary: make the largest component positive.
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    return np.asarray(centred @ (axes * np.sign(largest)).T)


def categories(names: Sequence[str], of: str) -> list[str]:
    """Return the category of each token: block of the periodic table, crystal system, tenth of the edge."""
    if of == "atoms":
        return [_block(name) for name in names]
    if of == "space-groups":
        from crystallm.crystallography import space_groups

        numbers = (space_groups.get(name.removesuffix("_sg")).number for name in names)
        return [next(system for last, system in SYSTEMS if number <= last) for number in numbers]
    return [f"{name[:3]}.." if "." in name else "digit" for name in names]


def _block(symbol: str) -> str:
    from crystallm.crystallography import elements

    number = elements.get(symbol).number
    if 57 <= number <= 71 or 89 <= number <= 103:
        return "f block"
    # After each noble gas: alkali and alkaline earth metal, then the d block, then the p block.
    noble_gas = max(gas for gas in (0, 2, 10, 18, 36, 54, 86) if gas < number)
    column = number - noble_gas - (14 if noble_gas in (54, 86) and number - noble_gas > 16 else 0)
    if number <= 2 or column <= 2:
        return "s block"
    return "d block" if noble_gas >= 18 and column <= 12 else "p block"


def nearest(names: Sequence[str], table: Floats, n: int) -> list[list[str]]:
    """Return for each vector the names of the n others with the smallest angle to it, nearest first."""
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    directions = table / np.where(lengths > 0, lengths, 1.0)
    cosines = directions @ directions.T
    np.fill_diagonal(cosines, -np.inf)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, : min(n, len(names) - 1)]
    return [[names[i] for i in row] for row in order]
