"""Read powder patterns: tables of numbers (.xy, .xye, .csv, .dat, .txt), PANalytical .xrdml, pdCIF.

A table has 2 theta (degrees) in its first column and intensity in its second, or columns with these names; a
third column of .xye, or one named sigma, has standard deviations. Columns named Q (1/Å) or d (Å) are
converted with the wavelength. Lines that do not begin with a number are skipped. `20,02; 1153,5` has decimal
commas.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystallm.diffraction.pattern import PowderPattern
from crystallm.errors import CrystallmError, InputError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from xml.etree.ElementTree import Element

    from crystallm.crystallography.space_groups import Floats

MAX_BYTES = 50_000_000
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_DECIMAL_COMMAS = re.compile(r"\s*[-+]?\d+,\d+(?:[;\s]+[-+]?\d+(?:,\d+)?)+[;\s]*")
_SEPARATOR = re.compile(r"[\s,;]+")
_ANGLE = re.compile(r"(?i)^(2-?theta|two_?theta|tth|2th|2θ|angle|ttheta|x)\b|2[ _-]?theta|2θ")
_MOMENTUM = re.compile(r"(?i)^q\b")
_SPACING = re.compile(r"(?i)^d\b|d-?spacing")
_INTENSITY = re.compile(r"(?i)^(intensity|counts?|int|i|y|iobs|yobs|cps)\b|intensit|count")
_SIGMA = re.compile(r"(?i)^(sigma|esd|error|err|e|std|s)\b|sigma|error")


def read_pattern(path: str | Path, wavelength: float | None = None) -> PowderPattern:
    """Return the pattern of a file.

    Args:
        path: of the file; its ending decides how it is read.
        wavelength: Å, for columns of Q or d.

    Raises:
        InputError: no pattern in it, or numbers that are no pattern.
        CrystallmError: it cannot be read.
    """
    path = Path(path)
    return parse_pattern(_text(path), path.name, wavelength)


def parse_pattern(text: str, name: str, wavelength: float | None = None) -> PowderPattern:
    """Return the pattern of a text.

    Args:
        name: of its file; the ending decides how it is read.
        wavelength: Å, for columns of Q or d.

    Raises:
        InputError: no pattern in it, or numbers that are no pattern.
    """
    readers: dict[str, Callable[[str, str], PowderPattern]] = {".cif": _cif, ".xrdml": _xrdml}
    ending = Path(name).suffix.lower()
    reader = readers.get(ending)
    return _table(text, name, ending, wavelength) if reader is None else reader(text, name)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: {path.stat().st_size:,} bytes are more than a pattern has")
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"no pattern {str(path)!r}: there is no such file") from None
    except OSError as error:
        raise CrystallmError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    if b"\0" in content[:1000] and content[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(
            f"{path.name}: a binary file; save the pattern as text (.xy), .xrdml or pdCIF with the "
            "program of the diffractometer"
        )
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return content.decode(encoding, errors="replace")


def _sorted(
    angles: Sequence[float] | Floats,
    counts: Sequence[float] | Floats,
    sigma: Sequence[float] | Floats | None,
    wavelength: float | None,
    name: str,
) -> PowderPattern:
    x, y = np.asarray(angles, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    order = np.argsort(x, kind="stable")
    errors = None if sigma is None else np.asarray(sigma, dtype=np.float64)
    if errors is not None and not (np.isfinite(errors).all() and (errors > 0).any()):
        errors = None
    if errors is not None:
        errors = np.where(errors > 0, errors, errors[errors > 0].min())[order]
    return PowderPattern(x[order], y[order], errors, wavelength, name)


def _table(text: str, name: str, ending: str, wavelength: float | None) -> PowderPattern:
    rows: list[list[float]] = []
    heads: list[str] = []
    for each in text.splitlines():
        line = each.replace(",", ".") if _DECIMAL_COMMAS.fullmatch(each) else each
        words = [word for word in _SEPARATOR.split(line.strip()) if word]
        if len(words) >= 2 and all(_NUMBER.fullmatch(word) for word in words[:2]):
            rows.append([_number(word) for word in words[:8]])
        elif not rows and words:
            own = re.split(r"[,;\t]", line.strip(" #!'\"\t")) if re.search("[,;\t]", line) else words
            heads = [word.strip(" #!'\"") for word in own]
    if not rows:
        raise InputError(f"{name}: no pattern in it: a line has 2 theta and intensity, as '20.02 1153'")
    width = min(map(len, rows))
    table = np.array([row[:width] for row in rows])
    x, kind = _column(heads, width, _MOMENTUM, None), "Q"
    if x is None:
        x, kind = _column(heads, width, _SPACING, None), "d"
    if x is None:
        x, kind = _column(heads, width, _ANGLE, 0), "2 theta"
    assert x is not None  # noqa: S101 - there is a default
    y = _column(heads, width, _INTENSITY, 1 if x != 1 else 0)
    third = 2 if ending == ".xye" and width > 2 else None
    sigma = _column(heads, width, _SIGMA, third)
    assert y is not None  # noqa: S101
    if sigma in (x, y):
        sigma = third
    angles = table[:, x] if kind == "2 theta" else _angles(table[:, x], kind, wavelength, name)
    seen = np.isfinite(angles)
    return _sorted(angles[seen], table[seen, y], None if sigma is None else table[seen, sigma], None, name)


def _column(heads: Sequence[str], width: int, pattern: re.Pattern[str], default: int | None) -> int | None:
    """Return the column whose head is like a pattern."""
    return next((i for i, head in enumerate(heads[:width]) if pattern.search(head)), default)


def _number(word: str) -> float:
    """Return the number that a word begins with, `1203(35)` among them; NaN for another word."""
    found = _NUMBER.match(word)
    return float(found[0]) if found else math.nan


def _angles(values: Floats, kind: str, wavelength: float | None, name: str) -> Floats:
    """Return 2 theta of values of Q or d; NaN beyond the range of the wavelength."""
    if wavelength is None:
        raise InputError(f"{name}: the column is {kind}: give --wavelength to convert it to 2 theta")
    with np.errstate(divide="ignore", invalid="ignore"):
        sines = values * wavelength / (4 * np.pi) if kind == "Q" else wavelength / (2 * values)
        return np.asarray(2 * np.degrees(np.arcsin(np.where(np.abs(sines) <= 1, sines, np.nan))))


def _xrdml(text: str, name: str) -> PowderPattern:
    import xml.etree.ElementTree as ET

    if "<!ENTITY" in text:
        raise InputError(f"{name}: XML with entities is not read")
    try:
        root = ET.fromstring(text.encode())  # noqa: S314
    except ET.ParseError as error:
        raise InputError(f"{name}: not XML that can be read: {one_line(error)}") from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    sums: dict[tuple[float, float, int], Floats] = {}
    for scan in root.iter("scan"):
        found = _scan(scan)
        if found is not None:
            key = (found[0][0], found[0][-1], len(found[0]))
            sums[key] = sums.get(key, np.zeros(key[2])) + found[1]
    if not sums:
        raise InputError(f"{name}: no scan over 2Theta in it")
    longest = max(sums, key=lambda key: (key[2], key[1]))
    wavelength = root.find(".//usedWavelength/kAlpha1")
    value = None if wavelength is None or not wavelength.text else _number(wavelength.text.strip())
    return _sorted(np.linspace(*longest), sums[longest], None, value, name)


def _scan(scan: Element) -> tuple[Floats, Floats] | None:
    """Return angles and intensities of a scan; None if it has another axis."""
    counts = next((e for tag in ("counts", "intensities") if (e := scan.find(f".//{tag}")) is not None), None)
    axis = next((p for p in scan.iter("positions") if p.get("axis") == "2Theta"), None)
    if counts is None or axis is None or not counts.text:
        return None
    y = np.array([float(word) for word in counts.text.split()])
    factors = scan.find(".//beamAttenuationFactors")
    if counts.tag == "counts" and factors is not None and factors.text:
        y = y * np.array([float(word) for word in factors.text.split()])
    start, end = axis.find("startPosition"), axis.find("endPosition")
    if start is None or end is None or not start.text or not end.text or len(y) < 2:
        return None
    return np.linspace(float(start.text), float(end.text), len(y)), y


_X = ("_pd_proc_2theta_corrected", "_pd_meas_2theta_scan", "_pd_meas_2theta_corrected", "_pd_meas_2theta")
_Y = (
    "_pd_meas_counts_total",
    "_pd_meas_intensity_total",
    "_pd_proc_intensity_total",
    "_pd_meas_counts",
    "_pd_proc_intensity_net",
    "_pd_meas_intensity_net",
)


def _cif(text: str, name: str) -> PowderPattern:
    from gemmi import cif

    try:
        document = cif.read_string(text)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{name}: not a CIF that can be read: {one_line(error)}") from None
    wavelength = next((w for block in document if (w := _wavelength(block)) is not None), None)
    for block in document:
        y_name = next((tag for tag in _Y if len(block.find_values(tag)) > 1), None)
        if y_name is None:
            continue
        y = [_number(word) for word in block.find_values(y_name)]
        x_name = next((tag for tag in _X if len(block.find_values(tag)) == len(y)), None)
        if x_name is not None:
            x = [_number(word) for word in block.find_values(x_name)]
        else:
            x = _range(block, len(y))
        seen = [i for i in range(len(y)) if i < len(x) and math.isfinite(x[i]) and math.isfinite(y[i])]
        if len(seen) > 1:
            return _sorted([x[i] for i in seen], [y[i] for i in seen], None, wavelength, name)
    raise InputError(
        f"{name}: no pattern in it: a pdCIF has {_X[1]} or a range of 2 theta, and {_Y[0]} or its like"
    )


def _wavelength(block: Any) -> float | None:
    """Return the wavelength of a block: the first of a list, which is K-alpha 1."""
    words = block.find_values("_diffrn_radiation_wavelength")
    numbers = [value for word in words if math.isfinite(value := _number(word)) and value > 0]
    return numbers[0] if numbers else None


def _range(block: Any, n: int) -> list[float]:
    """Return the angles of a block with a range of 2 theta; none if it has no range."""
    for kind in ("proc", "meas"):
        words = [block.find_value(f"_pd_{kind}_2theta_range_{end}") for end in ("min", "max")]
        if all(words):
            first, last = (_number(str(word)) for word in words)
            if math.isfinite(first) and math.isfinite(last):
                return [float(value) for value in np.linspace(first, last, n)]
    return []
