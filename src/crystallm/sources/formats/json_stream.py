"""Read JSON element by element: one element of a list or an object is held at a time.

Knows nothing of crystals.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING, Any, BinaryIO

from crystallm.errors import InputError
from crystallm.sources import streams

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHUNK = 1 << 16
_SPACE = re.compile(r"[ \t\r\n]*")
_BEHIND = tuple(" \t\r\n,]}")


class Reader:
    """Reads the JSON text of a file.

    Args:
        stream: the file.
        path: its name, for messages.
        most: characters of one element.
    """

    def __init__(self, stream: BinaryIO, path: Path, most: int) -> None:
        self._stream = stream
        self._path = path
        self._most = most
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._window = ""  # what has been read of the file and is still needed
        self._place = 0  # in it
        self._ended = False
        self._decoder = json.JSONDecoder()

    def peek(self) -> str:
        """Return the next character that is not a blank; "" at the end of the file."""
        while True:
            end = _SPACE.match(self._window, self._place)
            self._place = end.end() if end is not None else self._place
            if self._place < len(self._window):
                return self._window[self._place]
            if not self._more():
                return ""

    def list(self) -> Iterator[Any]:
        """Yield the elements of the list that begins here."""
        self._take("[")
        if self.peek() == "]":
            self._take("]")
            return
        while True:
            yield self.value()
            if not self._goes_on("]"):
                return

    def members(self) -> Iterator[str]:
        """Yield the names in the object that begins here; read the value before the next one."""
        self._take("{")
        if self.peek() == "}":
            self._take("}")
            return
        while True:
            if self.peek() != '"':
                raise self._broken("a name is missing")
            name = str(self.value())
            self._take(":")
            yield name
            if not self._goes_on("}"):
                return

    def value(self) -> Any:
        """Return the whole value that begins here."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._window, self._place)
            except RecursionError:
                raise InputError(f"{str(self._path)!r} is nested too deep: that is no crystal") from None
            except ValueError as error:  # incomplete, or no JSON at all
                found = error
            else:
                # A number may go on behind the window, which may end after its point.
                closed = self._window[end - 1] in '"]}' or self._window[end : end + 1] in _BEHIND
                if closed or not self._more():
                    self._place = end
                    return value
                continue
            # Each time twice as much, so that a value is not parsed for every chunk of it.
            if not self._more(len(self._window) - self._place):
                raise self._broken(found)

    def end(self) -> None:
        """Check that nothing follows.

        Raises:
            InputError: there is.
        """
        if self.peek():
            raise InputError(f"{str(self._path)!r} holds more than one JSON value: name it .jsonl")

    def _goes_on(self, closing: str) -> bool:
        char = self.peek()
        if char not in (",", closing):
            raise self._broken(f"{char!r} in place of a comma" if char else "it has no end")
        self._take(char)
        return char == ","

    def _take(self, char: str) -> None:
        found = self.peek()
        if found != char:
            raise self._broken(f"{found!r} in place of {char!r}" if found else "it has no end")
        self._place += 1

    def _more(self, size: int = 0) -> bool:
        """Read the next chunk; return False at the end of the file."""
        if self._ended:
            return False
        rest = self._window[self._place :]
        if len(rest) > self._most:
            raise InputError(
                f"{str(self._path)!r} has an element of more than {self._most / 1e6:g} MB: that is no crystal"
            )
        data = self._stream.read(min(max(CHUNK, size), self._most))
        self._ended = not data
        text = self._utf8.decode(data, final=self._ended)
        if "\0" in text:
            raise InputError(f"{str(self._path)!r} is binary, not JSON")
        self._window, self._place = rest + text, 0
        return bool(text) or not self._ended

    def _broken(self, why: object) -> InputError:
        return streams.broken(self._path, why)
