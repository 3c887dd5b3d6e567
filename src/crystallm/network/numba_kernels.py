"""Kernels compiled for this processor on first use (numba).

Attention of ragged rows reads the keys and values of each row once: no padding, no mask. Normalization and
gate of the Llama form take one pass each, where torch needs several. Sums are float32; stored numbers are
float32, or bfloat16 as their 16 bits in arrays of uint16. Attention may turn a NaN into a number: check the
stream to which it is added.

Does not depend on torch. Importing this module needs numba.

Letters of shapes: N new tokens of all rows, B rows, C width, H heads, D = C / H, W cached and new tokens of a
row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

_REORDER = {"reassoc", "contract", "nsz", "arcp"}  # sums may be reordered
FAST = _REORDER | {"nnan", "ninf"}  # and NaN need not be preserved
_UNROLL = 4  # tokens of a run, or columns, processed together
_CACHE_LINE = 64  # bytes
_LOG2_E = np.float32(1.44269504)

# ln 2 in two parts, and the polynomial of (exp(x) - 1 - x) / x² for |x| < ln 2 / 2 (Cephes, S. L. Moshier).
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_EXP5, _EXP4, _EXP3 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
_EXP2, _EXP1, _EXP0 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
_MIN_EXP = np.float32(-87.0)  # smallest x for which exp(x) is a normal float32
LOWEST = np.float32(-3e38)


@intrinsic
def _float_of(_: Any, bits: Any) -> Any:
    """Reinterpret 32 bits as a float32."""
    return types.float32(types.uint32), lambda _, builder, __, given: builder.bitcast(
        given[0], ir.FloatType()
    )


@intrinsic
def _bits_of(_: Any, number: Any) -> Any:
    """Reinterpret a float32 as 32 bits."""
    return types.uint32(types.float32), lambda _, builder, __, given: builder.bitcast(
        given[0], ir.IntType(32)
    )


@intrinsic
def prefetch(_: Any, address: Any) -> Any:
    """Prefetch a cache line. An invalid address is no error."""

    def generate(context: Any, builder: Any, _: Any, given: Any) -> Any:
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        name = "llvm.prefetch.p0"
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        # Read access, highest locality, data cache.
        builder.call(function, [builder.inttoptr(given[0], pointer), number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(types.int64), generate


def inlined(function: Any) -> Any:
    """Compile a function that is called by compiled functions only."""
    return njit(fastmath=FAST, no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")(function)


def to_float(stored: Any) -> Any:
    """Convert a stored number to float32."""


def from_float(number: Any, like: Any) -> Any:
    """Convert a float32 to the stored type of `like`, rounding half to even."""


@overload(to_float, inline="always")
def _to_float_impl(stored: Any) -> Any:
    def widened(stored: Any) -> Any:
        return _float_of(np.uint32(stored) << np.uint32(16))

    def same(stored: Any) -> Any:
        return stored

    return widened if stored == types.uint16 else same


@overload(from_float, inline="always")
def _from_float_impl(number: Any, like: Any) -> Any:
    def rounded(number: Any, like: Any) -> Any:
        bits = _bits_of(number)
        odd = (bits >> np.uint32(16)) & np.uint32(1)
        return np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))

    def same(number: Any, like: Any) -> Any:
        return number

    return rounded if like == types.uint16 else same


@inlined
def exponential(x: Any) -> Any:
    """Compute exp(x) of a float32 x <= 0, with a relative error of about 2e-7."""
    x = max(x, _MIN_EXP)
    n = np.floor(x * _LOG2_E + np.float32(0.5))
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    p = ((((_EXP5 * r + _EXP4) * r + _EXP3) * r + _EXP2) * r + _EXP1) * r + _EXP0
    return (p * r * r + r + np.float32(1)) * _float_of(np.uint32(np.int32(n) + 127) << np.uint32(23))


@inlined
def _softmax(scores: Any, width: int) -> Any:
    """Replace scores (W) by exp(score - max) in place and return 1 / their sum."""
    highest, total = LOWEST, np.float32(0)
    for j in range(width):
        highest = max(highest, scores[j])
    for j in range(width):
        scores[j] = exponential(scores[j] - highest)
        total += scores[j]
    return np.float32(1) / total


@inlined
def _append_keys(
    qkv: Any, rotation: Any, first: int, n_tokens: int, row: int, before: int, keys: Any, values: Any
) -> None:
    """Append the rotated keys and the values of a run to its row, all heads."""
    n_heads, n_dims = qkv.shape[2:]
    half = n_dims // 2
    like = qkv[0, 0, 0, 0]
    for t in range(n_tokens):
        token, column = first + t, before + t
        for h in range(n_heads):
            if rotation.shape[1]:
                for d in range(half):
                    cosine, sine = rotation[0, token, d], rotation[1, token, d]
                    left, right = to_float(qkv[token, 1, h, d]), to_float(qkv[token, 1, h, d + half])
                    keys[row, h, column, d] = from_float(left * cosine - right * sine, like)
                    keys[row, h, column, d + half] = from_float(right * cosine + left * sine, like)
            else:
                for d in range(n_dims):
                    keys[row, h, column, d] = qkv[token, 1, h, d]
            for d in range(n_dims):
                values[row, h, column, d] = qkv[token, 2, h, d]


@inlined
def rotate_query(qkv: Any, rotation: Any, token: int, h: int, query: Any, i: int) -> None:
    """Write a token's rotated query (D), divided by sqrt(D)."""
    n_dims = qkv.shape[3]
    half = n_dims // 2
    scale = np.float32(1 / np.sqrt(n_dims))
    if rotation.shape[1]:
        for d in range(half):
            cosine, sine = rotation[0, token, d] * scale, rotation[1, token, d] * scale
            left, right = to_float(qkv[token, 0, h, d]), to_float(qkv[token, 0, h, d + half])
            query[i, d] = left * cosine - right * sine
            query[i, d + half] = right * cosine + left * sine
    else:
        for d in range(n_dims):
            query[i, d] = to_float(qkv[token, 0, h, d]) * scale


@inlined
def _attend_one(
    queries: Any,
    keys: Any,
    values: Any,
    row: int,
    h: int,
    width: int,
    scores: Any,
    result: Any,
    follows: int,
    address: int,
) -> None:
    """Compute the attention (D) of one token over the first columns of a head; prefetch from `follows`."""
    n_dims = queries.shape[1]
    step = n_dims * keys.itemsize
    highest = LOWEST
    for j in range(width):
        score = np.float32(0)
        for d in range(n_dims):
            score += queries[0, d] * to_float(keys[row, h, j, d])
        scores[0, j] = score
        highest = max(highest, score)
        for line in range(0, step, _CACHE_LINE):
            prefetch(address + j * step + line)
    total = np.float32(0)
    for j in range(width):
        share = exponential(scores[0, j] - highest)
        scores[0, j] = share
        total += share
    share = np.float32(1) / total
    for d in range(n_dims):
        result[0, d] = 0
    even = width - width % _UNROLL
    for j in range(0, even, _UNROLL):
        a, b, c, e = scores[0, j], scores[0, j + 1], scores[0, j + 2], scores[0, j + 3]
        for d in range(n_dims):
            result[0, d] += (
                a * to_float(values[row, h, j, d])
                + b * to_float(values[row, h, j + 1, d])
                + c * to_float(values[row, h, j + 2, d])
                + e * to_float(values[row, h, j + 3, d])
            )
        for line in range(0, _UNROLL * step, _CACHE_LINE):
            prefetch(follows + j * step + line)
    for j in range(even, width):
        a = scores[0, j]
        for d in range(n_dims):
            result[0, d] += a * to_float(values[row, h, j, d])
    for d in range(n_dims):
        result[0, d] *= share


@inlined
def _attend_four(queries: Any, keys: Any, values: Any, width: int, scores: Any, result: Any) -> None:
    """Compute the attention (4, D) of four consecutive tokens, the last of which sees `width` columns."""
    n_dims = queries.shape[1]
    a, b, c, e = queries[0], queries[1], queries[2], queries[3]
    for j in range(width):
        p, q, r, s = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        key = keys[j]
        for d in range(n_dims):
            number = to_float(key[d])
            p += a[d] * number
            q += b[d] * number
            r += c[d] * number
            s += e[d] * number
        scores[0, j], scores[1, j], scores[2, j], scores[3, j] = p, q, r, s
    for i in range(_UNROLL):
        seen = width - _UNROLL + 1 + i
        share = _softmax(scores[i], seen)
        for j in range(seen):
            scores[i, j] *= share
        for j in range(seen, width):
            scores[i, j] = 0
        for d in range(n_dims):
            result[i, d] = 0
    a, b, c, e = result[0], result[1], result[2], result[3]
    even = width - width % 2
    for j in range(0, even, 2):
        p, q, r, s = scores[0, j], scores[1, j], scores[2, j], scores[3, j]
        t, u, v, w = scores[0, j + 1], scores[1, j + 1], scores[2, j + 1], scores[3, j + 1]
        value, next_value = values[j], values[j + 1]
        for d in range(n_dims):
            x, y = to_float(value[d]), to_float(next_value[d])
            a[d] += p * x + t * y
            b[d] += q * x + u * y
            c[d] += r * x + v * y
            e[d] += s * x + w * y
    for j in range(even, width):
        p, q, r, s = scores[0, j], scores[1, j], scores[2, j], scores[3, j]
        value = values[j]
        for d in range(n_dims):
            number = to_float(value[d])
            a[d] += p * number
            b[d] += q * number
            c[d] += r * number
            e[d] += s * number


def _attend(
    qkv: Any, rotation: Any, keys: Any, values: Any, plan: Any, longest: int, rows: tuple[int, int], out: Any
) -> None:
    """Compute the attention of new tokens and append their keys and values to their rows.

    Releases Python's lock: threads may share the rows.

    Args:
        qkv: (N, 3, H, D) queries, keys and values of the new tokens.
        rotation: (2, N, D / 2) float32, cosines and sines of rotary positions; (2, 0, 0) for none.
        keys: (B, H, capacity, D) of the rows; written at the new tokens' columns.
        plan: (3, B) int64: for each row the start of its run among the N, its length, the cached tokens.
        longest: runs of more tokens are only appended to keys and values, not written to `out`.
        rows: first row and the row after the last.
        out: (N, H, D), written.
    """
    n_heads, n_dims = qkv.shape[2:]
    queries = np.empty((_UNROLL, n_dims), np.float32)
    result = np.empty((_UNROLL, n_dims), np.float32)
    scores = np.empty((_UNROLL, keys.shape[2]), np.float32)
    head_step = keys.shape[2] * n_dims * keys.itemsize
    row_step = n_heads * head_step
    keys_at, values_at = keys.ctypes.data, values.ctypes.data
    like = qkv[0, 0, 0, 0]
    for row in range(rows[0], rows[1]):
        first, n_tokens, before = plan[0, row], plan[1, row], plan[2, row]
        _append_keys(qkv, rotation, first, n_tokens, row, before, keys, values)
        if n_tokens > longest:
            continue
        for h in range(n_heads):
            at = row * row_step + h * head_step
            t = 0
            while t < n_tokens:
                n_queries = _UNROLL if n_tokens - t >= _UNROLL else 1
                for i in range(n_queries):
                    rotate_query(qkv, rotation, first + t + i, h, queries, i)
                width = before + t + n_queries
                if n_queries == 1:
                    _attend_one(
                        queries,
                        keys,
                        values,
                        row,
                        h,
                        width,
                        scores,
                        result,
                        keys_at + at + head_step,
                        values_at + at,
                    )
                else:
                    _attend_four(queries, keys[row, h], values[row, h], width, scores, result)
                for i in range(n_queries):
                    for d in range(n_dims):
                        out[first + t + i, h, d] = from_float(result[i, d], like)
                t += n_queries


@inlined
def _add(x: Any, update: Any, row: int) -> None:
    """Add a row of an update (N, C), if it has rows, to a row of x (N, C)."""
    if len(update):
        target, added = x[row], update[row]
        for d in range(x.shape[1]):
            target[d] = from_float(to_float(target[d]) + to_float(added[d]), target[0])


def _rms_norm(x: Any, update: Any, weight: Any, epsilon: float, out: Any) -> None:
    """Add an update (N, C), if it has rows, to x (N, C), and write the RMSNorm of the sum to `out` (N, C).

    RMSNorm (arXiv:1910.07467) of each row, with a weight (C).
    """
    n_dims = x.shape[1]
    for row in range(x.shape[0]):
        _add(x, update, row)
        source, target = x[row], out[row]
        total = np.float32(0)
        for d in range(n_dims):
            total += to_float(source[d]) * to_float(source[d])
        scale = np.float32(1 / np.sqrt(total / np.float32(n_dims) + np.float32(epsilon)))
        for d in range(n_dims):
            target[d] = from_float(to_float(source[d]) * scale * to_float(weight[d]), source[0])


def _layer_norm(x: Any, update: Any, weight: Any, bias: Any, epsilon: float, out: Any) -> None:
    """As `rms_norm`, but LayerNorm (arXiv:1607.06450), with a weight (C) and a bias (C), or (0) for none."""
    n_dims = x.shape[1]
    for row in range(x.shape[0]):
        _add(x, update, row)
        source, target = x[row], out[row]
        total = np.float32(0)
        for d in range(n_dims):
            total += to_float(source[d])
        mean, squares = total / np.float32(n_dims), np.float32(0)
        for d in range(n_dims):
            squares += (to_float(source[d]) - mean) ** 2
        scale = np.float32(1 / np.sqrt(squares / np.float32(n_dims) + np.float32(epsilon)))
        if len(bias):
            for d in range(n_dims):
                normed = (to_float(source[d]) - mean) * scale * to_float(weight[d]) + to_float(bias[d])
                target[d] = from_float(normed, source[0])
        else:
            for d in range(n_dims):
                target[d] = from_float((to_float(source[d]) - mean) * scale * to_float(weight[d]), source[0])


def _swiglu(x: Any, out: Any) -> None:
    """Write SiLU of the first half of each row of x (N, 2 M), times the second, to `out` (N, M)."""
    half = out.shape[1]
    for row in range(x.shape[0]):
        source, target = x[row], out[row]
        for d in range(half):
            gate = to_float(source[d])
            small = exponential(-abs(gate))
            sigmoid = (np.float32(1) if gate >= 0 else small) / (np.float32(1) + small)
            target[d] = from_float(gate * sigmoid * to_float(source[half + d]), source[0])


def njit_cached(function: Any, fast: set[str]) -> Any:
    """Compile a function that Python calls, without its lock; kept beside the module for later processes."""
    try:
        return njit(fastmath=fast, nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # no writable cache folder: each process compiles again, in seconds
        return njit(fastmath=fast, nogil=True, error_model="numpy")(function)


attend = njit_cached(_attend, FAST)
rms_norm = njit_cached(_rms_norm, _REORDER)
layer_norm = njit_cached(_layer_norm, _REORDER)
swiglu = njit_cached(_swiglu, _REORDER)
