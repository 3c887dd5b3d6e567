"""A pickled list of (id, CIF), as the original CrystaLLM keeps its data, read without unpickling anything.

The opcodes are gone through by hand, and only those of plain data are known: None, bools, numbers, texts,
bytes, lists, tuples, dicts, and what refers to earlier ones of these. Any other would look up a class or call
something, and the file is refused for it before a first crystal is given. Twice through the file: the second
time it is known which values are asked for again, and all others are forgotten.
"""

from __future__ import annotations

import pickletools
import struct
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from crystallm.errors import InputError, one_line
from crystallm.sources import streams
from crystallm.sources.entry import MAX_BYTES, Entry, NoCrystalsError, clean, too_large

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


MAX_STACK = 100_000
"""Values that wait for their list; pickle hands over 1,000 at a time."""

MAX_HELD = 200_000_000
"""Bytes of texts that wait for their list, and of those that are asked for again."""

MAX_AGAIN = 1_000_000
"""Values that are asked for again."""

MAX_DEPTH = 100
"""Of lists within lists."""

_SCALARS = set(
    """NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING
    SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8
    BYTEARRAY8""".split()
)

_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}

_EMPTY = {"EMPTY_LIST": "list", "EMPTY_TUPLE": "tuple", "EMPTY_DICT": "dict"}

_OF_MARK = {"LIST": "list", "TUPLE": "tuple", "DICT": "dict"}

_OF_TOP = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

_PUT = {"PUT", "BINPUT", "LONG_BINPUT"}

_GET = {"GET", "BINGET", "LONG_BINGET"}

_OTHER = {"PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "MEMOIZE"}

_INTO = {"APPEND", "APPENDS", "SETITEM", "SETITEMS"}

PLAIN = _SCALARS | _EMPTY.keys() | _OF_MARK.keys() | _OF_TOP.keys() | _PUT | _GET | _OTHER | _INTO
"""Opcodes that make plain data."""


class _Bounded:
    """A stream of which nothing longer than MAX_BYTES is read at once, whatever length a pickle claims."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream = stream
        self._path = path

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_BYTES:
            raise self._too_long()
        return self._stream.read(size)

    def readline(self) -> bytes:
        line = self._stream.readline(MAX_BYTES + 1)
        if len(line) > MAX_BYTES:
            raise self._too_long()
        return line

    def _too_long(self) -> InputError:
        return InputError(
            f"{str(self._path)!r} holds a text of more than {MAX_BYTES / 1e6:g} MB: that is no CIF"
        )


@dataclass(slots=True)
class _Group:
    """A list, tuple or dict: its values (not those of a dict, for which nobody asks), and its depth."""

    kind: str
    items: list[Any]
    depth: int = 1

    def add(self, values: list[Any]) -> None:
        if self.kind != "dict":
            self.items += values
        self.depth = max([self.depth, *(value.depth + 1 for value in values if isinstance(value, _Group))])


def read_pickle(path: Path) -> Iterator[Entry]:
    """The crystals of a pickled list in its order; see `sources.read`."""
    again = _asked_again(path)
    number = -1
    for number, item in enumerate(_items(path, again)):
        yield _entry(item, str(number))
    if number < 0:
        raise NoCrystalsError(f"{str(path)!r} holds an empty list")


def _entry(item: Any, number: str) -> Entry:
    pair = item.items if isinstance(item, _Group) and len(item.items) == 2 else [number, item]
    name, text = (value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in pair)
    if isinstance(name, int) and abs(name) < 10**18:
        name = str(name)
    if not isinstance(text, str) or not isinstance(name, str):
        kind = item.kind if isinstance(item, _Group) else type(item).__name__
        return Entry(number, None, f"a {kind} in place of a pair of id and CIF")
    if len(text) > MAX_BYTES:
        return too_large(clean(name), len(text), what="text")
    return Entry(clean(name), clean(text)) if text.strip() else Entry(clean(name), None, "the text is empty")


def _opcodes(path: Path) -> Iterator[tuple[str, Any]]:
    """Names and arguments of the opcodes of a file."""
    # What pickletools raises on bytes that are no pickle.
    wrong = (ValueError, struct.error, IndexError, KeyError, OverflowError, AttributeError)
    with streams.binary(path) as stream, streams.telling(path, *wrong):
        stream_: Any = _Bounded(stream, path)
        for code, argument, _ in pickletools.genops(stream_):
            yield code.name, argument


def _asked_again(path: Path) -> set[int]:
    """Numbers of the values that a pickle refers to.

    Raises:
        InputError: it does not hold plain data alone.
    """
    again = set[int]()
    texts: deque[str] = deque(["?", "?"], maxlen=2)  # of which a class would be named
    for name, argument in _opcodes(path):
        if name not in PLAIN:
            _refuse(path, name, argument, texts)
        if name in _GET:
            again.add(argument)
            texts.append("?")
            if len(again) > MAX_AGAIN:
                raise InputError(
                    f"{str(path)!r} refers to more than {MAX_AGAIN:,} of its own values: refused"
                )
        elif isinstance(argument, str):
            texts.append(argument)
    return again


def _refuse(path: Path, name: str, argument: Any, texts: deque[str]) -> NoReturn:
    told = name
    if name == "STACK_GLOBAL":
        told = ".".join(texts)
    elif name in ("GLOBAL", "INST"):
        told = str(argument).replace(" ", ".")
    raise InputError(
        f"{str(path)!r} holds {one_line(told, 100)}, which is not plain data: refused. Nothing of it "
        "was run; save the crystals as CSV or Parquet"
    )


class _Memo:
    """Values that are asked for again, under the numbers that a pickle gives to all that it memorises."""

    def __init__(self, again: set[int]) -> None:
        self._again = again
        self._values: dict[int, Any] = {}
        self._counted = 0  # numbers 0 to this one have been given
        self._odd = set[int]()  # and these beyond
        self.held = 0

    def put(self, number: int, value: Any) -> None:
        if number == self._counted:
            self._counted += 1
            while self._counted in self._odd:
                self._odd.remove(self._counted)
                self._counted += 1
        elif number > self._counted:
            self._odd.add(number)
        if number in self._again:
            self._values[number] = value
            self.held += _size(value)

    def memoize(self, value: Any) -> None:
        """The next number is how many there are."""
        self.put(self._counted + len(self._odd), value)

    def get(self, number: int) -> Any:
        return self._values[number]

    @property
    def n_odd(self) -> int:
        return len(self._odd)


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes) else 64


class _Mark:
    """Where on the stack a list, tuple or dict begins."""


def _items(path: Path, again: set[int]) -> Iterator[Any]:
    """The items of the outermost list, each as soon as it is appended."""
    stack: list[Any] = []
    memo = _Memo(again)
    outermost: _Group | None = None
    held = 0  # bytes of what is on the stack, or was since the last item

    def since_mark() -> list[Any]:
        place = next((i for i in range(len(stack) - 1, -1, -1) if isinstance(stack[i], _Mark)), None)
        if place is None:
            raise IndexError("a mark is missing")
        values = stack[place + 1 :]
        del stack[place:]
        return values

    def made(kind: str, values: list[Any]) -> None:
        group = _Group(kind, [])
        group.add(values)
        if group.depth > MAX_DEPTH:
            raise InputError(f"{str(path)!r} is nested too deep: that is no list of crystals")
        stack.append(group)

    with streams.telling(path, IndexError, KeyError, TypeError):
        for name, argument in _opcodes(path):
            held += _size(argument)
            if name in _SCALARS:
                stack.append(_CONSTANTS.get(name, argument))
            elif name in _EMPTY:
                made(_EMPTY[name], [])
            elif name in _OF_MARK:
                made(_OF_MARK[name], since_mark())
            elif name in _OF_TOP:
                values = stack[-_OF_TOP[name] :]
                del stack[-_OF_TOP[name] :]
                made("tuple", values)
            elif name == "MEMOIZE":
                memo.memoize(stack[-1])
            elif name in _PUT:
                memo.put(argument, stack[-1])
            elif name in _GET:
                stack.append(memo.get(argument))
            elif name == "MARK":
                stack.append(_Mark())
            elif name == "DUP":
                stack.append(stack[-1])
            elif name == "POP":
                stack.pop()
            elif name == "POP_MARK":
                since_mark()
            elif name in _INTO:
                n_values = 2 if name == "SETITEM" else 1
                values = since_mark() if name.endswith("S") else stack[-n_values:]
                if not name.endswith("S"):
                    del stack[-n_values:]
                group = stack[-1]
                if not isinstance(group, _Group):
                    raise TypeError(f"{name} to no list")
                if outermost is not None and any(value is outermost for value in values):
                    raise InputError(f"{str(path)!r} holds a list that holds itself: refused")
                if group is outermost:
                    yield from values
                    held = 0
                else:
                    group.add(values)
                    if group.depth > MAX_DEPTH:
                        raise InputError(f"{str(path)!r} is nested too deep: that is no list of crystals")
            if outermost is None and stack and not isinstance(stack[0], _Mark):
                outermost = stack[0] if isinstance(stack[0], _Group) and stack[0].kind == "list" else None
                if outermost is None:
                    raise InputError(f"{str(path)!r} is no pickled list of crystals: refused")
                yield from outermost.items
                outermost.items.clear()
            if len(stack) > MAX_STACK or memo.n_odd > MAX_STACK or held + memo.held > MAX_HELD:
                raise InputError(f"{str(path)!r} holds too much at once: that is no list of crystals")
