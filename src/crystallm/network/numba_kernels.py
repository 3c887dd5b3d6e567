"""What stands between a network's products, compiled for this processor when first asked for (numba).

Attention of ragged rows, each of which reads its own keys and values once, whatever the others' lengths are:
no padding, no mask. The normalisation and the gate of the Llama form, which torch computes in many passes.
Sums are float32; what is stored is float32 or bfloat16, the latter as its 16 bits in arrays of uint16.
Attention may make a number of what is none: who needs to know asks the stream to which it is added.

Knows arrays alone; when it is used is the business of `ragged`. Importing this module needs numba.

Letters of shapes: N new tokens of all rows, B rows, C width, H heads, D = C / H, W cached tokens of a row
with the new ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

_EXACT = {"reassoc", "contract", "nsz", "arcp"}  # sums may be taken in any order

_FAST = _EXACT | {"nnan", "ninf"}  # and what is no number need not stay none

_SIDE = 4  # tokens of a run, or columns, that are treated side by side

_LINE = 64  # bytes that memory gives at once

_LOG2_E = np.float32(1.44269504)

# ln 2 in two parts, and the polynomial of (exp(x) - 1 - x) / x² for |x| < ln 2 / 2 (Cephes, S. L. Moshier).
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)

_EXP5, _EXP4, _EXP3 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)

_EXP2, _EXP1, _EXP0 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)

_LEAST = np.float32(-87.0)  # whose exp is still a normal float32

_LOWEST = np.float32(-3e38)


@intrinsic
def _float_of(_: Any, bits: Any) -> Any:
    """The float32 of 32 bits."""
    return types.float32(types.uint32), lambda _, builder, __, given: builder.bitcast(
        given[0], ir.FloatType()
    )


@intrinsic
def _bits_of(_: Any, number: Any) -> Any:
    """The 32 bits of a float32."""
    return types.uint32(types.float32), lambda _, builder, __, given: builder.bitcast(
        given[0], ir.IntType(32)
    )


@intrinsic
def _ask_for(_: Any, address: Any) -> Any:
    """Have memory bring a line to the caches. Any address will do: one that is none is no error."""

    def generate(context: Any, builder: Any, _: Any, given: Any) -> Any:
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        name = "llvm.prefetch.p0"
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        # To be read, to be kept in all caches, as data.
        builder.call(function, [builder.inttoptr(given[0], pointer), number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(types.int64), generate


def _part(function: Any) -> Any:
    """A function of compiled ones alone."""
    return njit(fastmath=_FAST, no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")(function)


def _number(stored: Any) -> Any:
    """A stored number as float32."""


def _stored(number: Any, like: Any) -> Any:
    """A float32 as numbers like that one are stored, rounded to the nearest, to even ones between two."""


@overload(_number, inline="always")
def _number_of(stored: Any) -> Any:
    def widened(stored: Any) -> Any:
        return _float_of(np.uint32(stored) << np.uint32(16))

    def same(stored: Any) -> Any:
        return stored

    return widened if stored == types.uint16 else same


@overload(_stored, inline="always")
def _stored_of(number: Any, like: Any) -> Any:
    def rounded(number: Any, like: Any) -> Any:
        bits = _bits_of(number)
        odd = (bits >> np.uint32(16)) & np.uint32(1)
        return np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))

    def same(number: Any, like: Any) -> Any:
        return number

    return rounded if like == types.uint16 else same


@_part
def _exp(x: Any) -> Any:
    """Exp of a float32 that is not positive, to some 2e-7 of it."""
    x = max(x, _LEAST)
    n = np.floor(x * _LOG2_E + np.float32(0.5))
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    p = ((((_EXP5 * r + _EXP4) * r + _EXP3) * r + _EXP2) * r + _EXP1) * r + _EXP0
    return (p * r * r + r + np.float32(1)) * _float_of(np.uint32(np.int32(n) + 127) << np.uint32(23))


@_part
def _soften(scores: Any, width: int) -> Any:
    """Put exp(score - the highest) in the place of scores (W), and give 1 / their sum."""
    highest, total = _LOWEST, np.float32(0)
    for j in range(width):
        highest = max(highest, scores[j])
    for j in range(width):
        scores[j] = _exp(scores[j] - highest)
        total += scores[j]
    return np.float32(1) / total


@_part
def _enter(
    qkv: Any, turn: Any, first: int, n_tokens: int, h: int, before: int, keys: Any, values: Any
) -> None:
    """Write keys and values of a run's tokens, turned by their places, where a head of its row keeps them."""
    n_dims = keys.shape[1]
    half = n_dims // 2
    for t in range(n_tokens):
        key, value = keys[before + t], values[before + t]
        source, given = qkv[first + t, 1, h], qkv[first + t, 2, h]
        if turn.shape[1]:
            for d in range(half):
                cosine, sine = turn[0, first + t, d], turn[1, first + t, d]
                one, two = _number(source[d]), _number(source[d + half])
                key[d] = _stored(one * cosine - two * sine, source[0])
                key[d + half] = _stored(two * cosine + one * sine, source[0])
        else:
            for d in range(n_dims):
                key[d] = source[d]
        for d in range(n_dims):
            value[d] = given[d]


@_part
def _ask(qkv: Any, turn: Any, token: int, h: int, query: Any) -> None:
    """Write a token's query (D), turned by its place and divided by the root of D."""
    n_dims = len(query)
    half = n_dims // 2
    scale = np.float32(1 / np.sqrt(n_dims))
    source = qkv[token, 0, h]
    if turn.shape[1]:
        for d in range(half):
            cosine, sine = turn[0, token, d] * scale, turn[1, token, d] * scale
            one, two = _number(source[d]), _number(source[d + half])
            query[d] = one * cosine - two * sine
            query[d + half] = two * cosine + one * sine
    else:
        for d in range(n_dims):
            query[d] = _number(source[d]) * scale


@_part
def _one(query: Any, keys: Any, values: Any, width: int, scores: Any, found: Any, follows: int) -> None:
    """Attention (D) of one token over the first columns of a head. What `follows` in memory is asked for."""
    n_dims = len(query)
    step = n_dims * keys.itemsize
    ahead = values.ctypes.data
    for j in range(width):
        score, key = np.float32(0), keys[j]
        for d in range(n_dims):
            score += query[d] * _number(key[d])
        scores[j] = score
        for line in range(0, step, _LINE):
            _ask_for(ahead + j * step + line)
    share = _soften(scores, width)
    for d in range(n_dims):
        found[d] = 0
    even = width - width % _SIDE
    for j in range(0, even, _SIDE):
        a, b, c, e = scores[j], scores[j + 1], scores[j + 2], scores[j + 3]
        v, w, x, y = values[j], values[j + 1], values[j + 2], values[j + 3]
        for d in range(n_dims):
            found[d] += a * _number(v[d]) + b * _number(w[d]) + c * _number(x[d]) + e * _number(y[d])
        for line in range(0, _SIDE * step, _LINE):
            _ask_for(follows + j * step + line)
    for j in range(even, width):
        a, v = scores[j], values[j]
        for d in range(n_dims):
            found[d] += a * _number(v[d])
    for d in range(n_dims):
        found[d] *= share


@_part
def _four(queries: Any, keys: Any, values: Any, width: int, scores: Any, found: Any) -> None:
    """Attention (4, D) of four tokens in a row, the last of which sees so many columns."""
    n_dims = queries.shape[1]
    a, b, c, e = queries[0], queries[1], queries[2], queries[3]
    for j in range(width):
        p, q, r, s = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        key = keys[j]
        for d in range(n_dims):
            number = _number(key[d])
            p += a[d] * number
            q += b[d] * number
            r += c[d] * number
            s += e[d] * number
        scores[0, j], scores[1, j], scores[2, j], scores[3, j] = p, q, r, s
    for i in range(_SIDE):
        seen = width - _SIDE + 1 + i
        share = _soften(scores[i], seen)
        for j in range(seen):
            scores[i, j] *= share
        for j in range(seen, width):
            scores[i, j] = 0
        for d in range(n_dims):
            found[i, d] = 0
    a, b, c, e = found[0], found[1], found[2], found[3]
    even = width - width % 2
    for j in range(0, even, 2):
        p, q, r, s = scores[0, j], scores[1, j], scores[2, j], scores[3, j]
        t, u, v, w = scores[0, j + 1], scores[1, j + 1], scores[2, j + 1], scores[3, j + 1]
        value, other = values[j], values[j + 1]
        for d in range(n_dims):
            x, y = _number(value[d]), _number(other[d])
            a[d] += p * x + t * y
            b[d] += q * x + u * y
            c[d] += r * x + v * y
            e[d] += s * x + w * y
    for j in range(even, width):
        p, q, r, s = scores[0, j], scores[1, j], scores[2, j], scores[3, j]
        value = values[j]
        for d in range(n_dims):
            number = _number(value[d])
            a[d] += p * number
            b[d] += q * number
            c[d] += r * number
            e[d] += s * number


def _attend(
    qkv: Any, turn: Any, keys: Any, values: Any, plan: Any, longest: int, rows: tuple[int, int], out: Any
) -> None:
    """Attention of new tokens, whose keys and values are written behind those of their rows.

    Releases Python's lock: threads may share the rows.

    Args:
        qkv: (N, 3, H, D) what the tokens ask, are asked for and tell.
        turn: (2, N, D / 2) float32, cosines and sines of rotary positions; (2, 0, 0) for none.
        keys: (B, H, capacity, D) of the rows; written at the new tokens' columns.
        values: likewise.
        plan: (3, B) int64: where each row's run starts among the N, its length, the row's tokens before it.
        longest: runs of more tokens are written to keys and values and not to `out`.
        rows: the first of the B that are meant, and the one behind the last.
        out: (N, H, D) to be written.
    """
    n_heads, n_dims = qkv.shape[2:]
    queries = np.empty((_SIDE, n_dims), np.float32)
    found = np.empty((_SIDE, n_dims), np.float32)
    scores = np.empty((_SIDE, keys.shape[2]), np.float32)
    for row in range(rows[0], rows[1]):
        first, n_tokens, before = plan[0, row], plan[1, row], plan[2, row]
        for h in range(n_heads):
            own, told = keys[row, h], values[row, h]
            following = keys[row, h + 1] if h + 1 < n_heads else keys[min(row + 1, rows[1] - 1), 0]
            follows = following.ctypes.data
            _enter(qkv, turn, first, n_tokens, h, before, own, told)
            t = 0 if n_tokens <= longest else n_tokens
            while t < n_tokens:
                many = _SIDE if n_tokens - t >= _SIDE else 1
                for i in range(many):
                    _ask(qkv, turn, first + t + i, h, queries[i])
                width = before + t + many
                if many == 1:
                    _one(queries[0], own, told, width, scores[0], found[0], follows)
                else:
                    _four(queries, own, told, width, scores, found)
                for i in range(many):
                    to = out[first + t + i, h]
                    for d in range(n_dims):
                        to[d] = _stored(found[i, d], to[0])
                t += many


def _rms_norm(x: Any, weight: Any, epsilon: float, out: Any) -> None:
    """RMSNorm (arXiv:1910.07467) of each row of x (N, C) with a weight (C), into `out` (N, C)."""
    n_dims = x.shape[1]
    for row in range(x.shape[0]):
        given, to = x[row], out[row]
        total = np.float32(0)
        for d in range(n_dims):
            total += _number(given[d]) * _number(given[d])
        scale = np.float32(1 / np.sqrt(total / np.float32(n_dims) + np.float32(epsilon)))
        for d in range(n_dims):
            to[d] = _stored(_number(given[d]) * scale * _number(weight[d]), given[0])


def _swiglu(x: Any, out: Any) -> None:
    """SiLU of the first half of each row of x (N, 2 M), times the second, into `out` (N, M)."""
    half = out.shape[1]
    for row in range(x.shape[0]):
        given, to = x[row], out[row]
        for d in range(half):
            gate = _number(given[d])
            small = _exp(-abs(gate))
            sigmoid = (np.float32(1) if gate >= 0 else small) / (np.float32(1) + small)
            to[d] = _stored(gate * sigmoid * _number(given[half + d]), given[0])


def _built(function: Any, fast: set[str]) -> Any:
    try:
        return njit(fastmath=fast, nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # no folder that can be written to: compiled anew by each process, in seconds
        return njit(fastmath=fast, nogil=True, error_model="numpy")(function)


attend = _built(_attend, _FAST)

rms_norm = _built(_rms_norm, _EXACT)

swiglu = _built(_swiglu, _EXACT)
