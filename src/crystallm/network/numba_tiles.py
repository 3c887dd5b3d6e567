"""Attention in bfloat16 by tiles of a processor with AMX, compiled on first use (numba).

A tile holds 16 rows of 64 bytes. The product of two tiles multiplies (16, 32) by (32, 16) numbers and adds up
in float32; rows of the second factor come in pairs. Keys and values are kept as such tiles: a block of 32
columns of a head holds, in this order,

    keys      (2 parts of 16 columns, D / 2 pairs of dimensions, 16 columns, 2 dimensions)
    values    (D / 16 parts of 16 dimensions, 16 pairs of columns, 16 dimensions, 2 columns)

Stored numbers are the 16 bits of a bfloat16. Queries and the shares of the softmax are rounded to bfloat16.
Does not depend on torch. Importing this module needs numba. Letters of shapes as in `numba_kernels`.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

from crystallm.network.numba_kernels import (
    FAST,
    LOWEST,
    exponential,
    from_float,
    inlined,
    njit_cached,
    prefetch,
    rotate_query,
    to_float,
)

_COLUMNS = 32  # of a block
_SIDE = 16  # rows of a tile, and float32 of a row
_ROW, _TILE = 64, 1024  # bytes
_BYTE = ir.IntType(8)
# System call arch_prctl of Linux on x86-64, its request for a state of the processor, and the state of tiles.
_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA = 158, 0x1023, 18


def permitted() -> bool:
    """Return whether the processor multiplies tiles of bfloat16 and the system lets this process use them."""
    features = binding.get_host_cpu_features()
    if sys.platform != "linux" or not (features.get("amx-tile") and features.get("amx-bf16")):
        return False
    call = ctypes.CDLL(None).syscall
    return bool(call(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA) == 0)


def _instruction(name: str, n_tiles: int, n_numbers: int) -> Any:
    """Return a function that executes an instruction.

    Args:
        n_tiles: number of first arguments, which are numbers of tiles, constants.
        n_numbers: number of the other arguments: an address and maybe a stride, in bytes.
    """

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        tiles = [_BYTE(number.literal_value) for number in signature.args[:n_tiles]]
        numbers = list(given[n_tiles:])
        if numbers:
            numbers[0] = builder.inttoptr(numbers[0], _BYTE.as_pointer())
        arguments = [*tiles, *numbers]
        kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        full_name = f"llvm.x86.{name}"
        known = builder.module.globals.get(full_name)
        builder.call(known or ir.Function(builder.module, kind, full_name), arguments)
        return context.get_dummy_value()

    addresses = [types.int64] * n_numbers

    def of_one(_: Any, first: Any) -> Any:
        return types.void(*([first] if n_tiles else addresses)), generate

    def of_three(_: Any, first: Any, second: Any, third: Any) -> Any:
        return types.void(*(first, second, third)[:n_tiles], *addresses), generate

    return intrinsic(prefer_literal=True)(of_one if n_tiles + n_numbers == 1 else of_three)


_configure = _instruction("ldtilecfg", 0, 1)
_get_configuration = _instruction("sttilecfg", 0, 1)
_zero = _instruction("tilezero", 1, 0)
_load = _instruction("tileloadd64", 1, 2)
_store = _instruction("tilestored64", 1, 2)
_add_product = _instruction("tdpbf16ps", 3, 0)


@inlined
def _use_tiles(before: Any) -> None:
    """Configure 8 full tiles. Write the configuration before, which others of this thread rely on."""
    configuration = np.zeros(_ROW, np.uint8)
    configuration[0] = 1
    for tile in range(8):
        configuration[16 + 2 * tile], configuration[48 + tile] = _ROW, _SIDE
    _get_configuration(before.ctypes.data)
    _configure(configuration.ctypes.data)
    configuration[0] = 0  # so that it is in memory until here


@inlined
def _leave_tiles(before: Any) -> None:
    _configure(before.ctypes.data)


@inlined
def _append(qkv: Any, rotation: Any, token: int, h: int, column: int, keys: Any, values: Any) -> None:
    """Append the rotated key and the value of a token to a head of its row, flat."""
    n_dims = qkv.shape[3]
    half = n_dims // 2
    block, inside = column // _COLUMNS * _COLUMNS * n_dims, column % _COLUMNS
    key_at = block + inside // _SIDE * _SIDE * n_dims + inside % _SIDE * 2
    for d in range(n_dims):
        number = qkv[token, 1, h, d]
        if rotation.shape[1]:
            cosine, sine = rotation[0, token, d % half], rotation[1, token, d % half]
            other = to_float(qkv[token, 1, h, (d + half) % n_dims]) * sine
            number = from_float(to_float(number) * cosine + (other if d >= half else -other), number)
        keys[key_at + d // 2 * 32 + d % 2] = number
    value_at = block + inside // 2 * 32 + inside % 2
    for d in range(n_dims):
        values[value_at + d // _SIDE * 512 + d % _SIDE * 2] = qkv[token, 2, h, d]


@inlined
def _score(queries: Any, keys_at: int, width: int, scores: Any, ahead: int) -> None:
    """Write the products of queries (16, D) and keys to the first columns of scores (16, W).

    Args:
        ahead: address of memory of the size of the keys that is needed next; 0 for none.
    """
    n_dims = queries.shape[1]
    queries_at, scores_at, step = queries.ctypes.data, scores.ctypes.data, scores.shape[1] * 4
    size = _COLUMNS * n_dims * 2
    for j in range(0, width, _COLUMNS):
        at = keys_at + j * n_dims * 2
        _zero(0)
        _zero(1)
        for d in range(0, n_dims, 32):
            _load(2, queries_at + d * 2, n_dims * 2)
            _load(3, at + d * 32, _ROW)
            _load(4, at + size // 2 + d * 32, _ROW)
            _add_product(0, 2, 3)
            _add_product(1, 2, 4)
        if ahead:
            for line in range(0, size, _ROW):
                prefetch(ahead + j * n_dims * 2 + line)
        _store(0, scores_at + j * 4, step)
        _store(1, scores_at + j * 4 + _ROW, step)


@inlined
def _combine(shares: Any, values_at: int, width: int, result: Any, ahead: int) -> None:
    """Write the sums of values, each times its share (16, W), to the result (16, D); see `_score`."""
    n_dims = result.shape[1]
    shares_at, result_at, step = shares.ctypes.data, result.ctypes.data, shares.shape[1] * 2
    for d in range(0, n_dims, 32):
        _zero(0)
        _zero(1)
        for j in range(0, width, _COLUMNS):
            at = j * n_dims * 2 + d * _ROW
            _load(2, shares_at + j * 2, step)
            _load(3, values_at + at, _ROW)
            _load(4, values_at + at + _TILE, _ROW)
            _add_product(0, 2, 3)
            _add_product(1, 2, 4)
            if ahead:
                for line in range(0, 2 * _TILE, _ROW):
                    prefetch(ahead + at + line)
        _store(0, result_at + d * 4, n_dims * 4)
        _store(1, result_at + d * 4 + _ROW, n_dims * 4)


@inlined
def _softmax(scores: Any, seen: int, width: int, maxima: Any, shares: Any) -> Any:
    """Write exp(score - max) of the first `seen` scores to shares, about 0 to others, and return 1 / the sum.

    Args:
        width: a multiple of 16.
        maxima: (16), overwritten: maxima of every 16th score, found together.
    """
    for j in range(seen, width):
        scores[j] = LOWEST
    for i in range(_SIDE):
        maxima[i] = LOWEST
    for j in range(0, width, _SIDE):
        for i in range(_SIDE):
            maxima[i] = max(maxima[i], scores[j + i])
    highest, total = LOWEST, np.float32(0)
    for i in range(_SIDE):
        highest = max(highest, maxima[i])
    for j in range(width):
        share = from_float(exponential(scores[j] - highest), shares[0])
        shares[j] = share
        total += to_float(share)
    return np.float32(1) / total


def _attend(
    qkv: Any, rotation: Any, keys: Any, values: Any, plan: Any, rows: tuple[int, int], out: Any
) -> None:
    """As `numba_kernels.attend` for runs of any length, with keys and values as tiles."""
    n_heads, capacity, n_dims = keys.shape[1:]
    query, result = np.zeros((1, n_dims), np.float32), np.zeros((_SIDE, n_dims), np.float32)
    queries, shares = np.zeros((_SIDE, n_dims), np.uint16), np.zeros((_SIDE, capacity), np.uint16)
    scores, maxima = np.zeros((_SIDE, capacity), np.float32), np.zeros(_SIDE, np.float32)
    factors, configuration = np.zeros(_SIDE, np.float32), np.zeros(_ROW, np.uint8)
    head_size = capacity * n_dims * 2
    _use_tiles(configuration)
    for row in range(rows[0], rows[1]):
        first, n_tokens, before = plan[0, row], plan[1, row], plan[2, row]
        for h in range(n_heads):
            for t in range(n_tokens):
                _append(
                    qkv,
                    rotation,
                    first + t,
                    h,
                    before + t,
                    keys[row, h].reshape(-1),
                    values[row, h].reshape(-1),
                )
            at = (row * n_heads + h) * head_size
            keys_at, values_at = keys.ctypes.data + at, values.ctypes.data + at
            for start in range(0, n_tokens, _SIDE):
                token, seen = first + start, before + start + 1
                n = min(_SIDE, n_tokens - start)
                for i in range(n):
                    rotate_query(qkv, rotation, token + i, h, query, 0)
                    for d in range(n_dims):
                        queries[i, d] = from_float(query[0, d], queries[0, 0])
                width = (seen + n - 1 + _COLUMNS - 1) // _COLUMNS * _COLUMNS
                _score(queries, keys_at, width, scores, 0 if start else values_at)
                for i in range(n):
                    factors[i] = _softmax(scores[i], seen + i, width, maxima, shares[i])
                _combine(shares, values_at, width, result, 0 if start else keys_at + head_size)
                for i in range(n):
                    for d in range(n_dims):
                        out[token + i, h, d] = from_float(result[i, d] * factors[i], queries[0, 0])
    _leave_tiles(configuration)


attend = njit_cached(_attend, FAST)
