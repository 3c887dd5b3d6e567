"""Signs in formulas: subscripts, dots between parts, fractions of parts; superscripts are rejected."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

from crystallm.errors import InputError

_DOTS = str.maketrans(dict.fromkeys("•⋅∙*⸱・･‧", "·"))
_SUPERSCRIPT = re.compile(r"([⁰¹²³⁴-⁹]+|\^\{?\d+\}?)(\s*[A-Z][a-z]?)?")
_VULGAR = re.compile(r"(\d*)([¼-¾⅐-⅞])")
_POINT = re.compile(r"(·\s*\d+\.\d+)|(?<=[A-Za-z\d)\]}])\.(\s*(?:\d+(?:\.\d+|/\d+)?)?\s*H2O\b)")
"""A decimal point in the number in front of a part; or the dot of a hydrate."""


def plain(text: str) -> str:
    """Return the formula in ASCII, with '·' between its parts."""
    ascii_text = _VULGAR.sub(_fraction, text.translate(_DOTS))
    ascii_text = unicodedata.normalize("NFKC", ascii_text).translate(_DOTS).strip()
    ascii_text = re.sub(r"_\{?(\d+)\}?", r"\1", ascii_text.replace("$", ""))
    # A dot is a decimal point between digits, save in a hydrate: CaSO4.2H2O, but Li0.5CoO2.
    ascii_text = re.sub(r"\.(?=\s*[A-Z(\[{])|\s\.\s", "·", ascii_text)
    return _POINT.sub(lambda match: match[1] or f"·{match[2]}", ascii_text)


def _fraction(match: re.Match[str]) -> str:
    """Return a number with a sign for a fraction, `1½`, as 3/2."""
    return str(Fraction(unicodedata.numeric(match[2])).limit_denominator(10) + int(match[1] or 0))


def check_superscripts(shown: str) -> None:
    """Check that a formula has no superscript.

    Raises:
        InputError: it has, of an isotope or a charge.
    """
    match = _SUPERSCRIPT.search(shown)
    if match is None:
        return
    number = unicodedata.normalize("NFKC", match[1]).strip("^{}")
    symbol = (match[2] or "").strip()
    if symbol and shown[: match.start()].strip()[-1:].isalnum() is False:
        raise InputError(
            f"{shown!r}: {number} before {symbol} is the mass number of an isotope, and only elements have "
            f"tokens: write {symbol}"
        )
    raise InputError(
        f"{shown!r}: {number} is written as a superscript, as charges and mass numbers are: write the "
        "neutral formula, with counts behind the symbols"
    )
