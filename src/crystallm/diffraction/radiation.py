"""Radiation of a powder pattern: its wavelengths, and how atoms scatter it.

With s = sin(theta) / lambda = 1 / (2 d):

    X-rays     f(s) = sum_i a_i exp(-b_i s^2) + c, of neutral atoms (International Tables C, 1992), electrons;
               anomalous scattering is left out
    neutrons   f(s) = b, the coherent scattering length, fm
    X-rays     LP(theta) = (1 + cos^2 2 theta) / (sin^2 theta cos theta), an unpolarised beam
    neutrons   LP(theta) = 1 / (sin^2 theta cos theta)
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystallm.crystallography.space_groups import Floats

Kind = Literal["xray", "neutron"]
TUBES = {
    "Cr": (2.28970, 2.29361),
    "Fe": (1.93604, 1.93998),
    "Co": (1.78897, 1.79285),
    "Cu": (1.54056, 1.54439),
    "Mo": (0.70930, 0.71359),
    "Ag": (0.55941, 0.56380),
}
"""Wavelengths of K-alpha 1 and 2, Å (International Tables C, 4.2.2)."""
RATIO = 0.5
"""Intensity of K-alpha 2 relative to K-alpha 1."""
SHORTEST, LONGEST = 0.05, 10.0
"""Wavelengths that are accepted, Å."""


@dataclass(frozen=True, slots=True)
class Radiation:
    """Radiation of a pattern.

    Attributes:
        name: as given, for messages.
        wavelength: of the only or the stronger line, Å.
        second: wavelength of the weaker line, Å; None for a single line.
    """

    name: str
    wavelength: float
    second: float | None = None
    kind: Kind = "xray"

    @property
    def wavelengths(self) -> tuple[float, ...]:
        """All lines, the stronger first, Å."""
        return (self.wavelength,) if self.second is None else (self.wavelength, self.second)

    def two_theta(self, squares: Floats) -> Floats:
        """Return 2 theta of the stronger line (degrees) of values of 1/d^2 (1/Å^2); 180 beyond its range."""
        sines = np.minimum(self.wavelength / 2 * np.sqrt(squares), 1.0)
        return np.asarray(2 * np.degrees(np.arcsin(sines)))

    def lorentz_polarization(self, theta: Floats) -> Floats:
        """Return LP of angles theta (radians)."""
        lorentz = 1 / (np.sin(theta) ** 2 * np.cos(theta))
        return np.asarray(lorentz if self.kind == "neutron" else lorentz * (1 + np.cos(2 * theta) ** 2))


def radiation_of(name: str, kind: Kind = "xray") -> Radiation:
    """Return the radiation of a name or a wavelength.

    Args:
        name: `CuKa` (both lines), `CuKa1`, the same of Cr, Fe, Co, Mo, Ag, or a wavelength in Å.
        kind: what is scattered.

    Raises:
        InputError: none of these.
    """
    text = name.strip()
    try:
        wavelength = float(text)
    except ValueError:
        return _of_tube(text)
    if not SHORTEST <= wavelength <= LONGEST:
        raise InputError(f"wavelength = {text} Å: give one from {SHORTEST} to {LONGEST} Å, such as 1.5406")
    return Radiation(f"{wavelength:g} Å", wavelength, kind=kind)


def _of_tube(text: str) -> Radiation:
    plain = "".join(char for char in text.replace("α", "a").replace("alpha", "a") if char.isalnum()).lower()
    names = {f"{symbol}ka".lower(): symbol for symbol in TUBES}
    if plain in names:
        first, second = TUBES[names[plain]]
        return Radiation(f"{names[plain]}Ka", first, second)
    if plain[:-1] in names and plain[-1] == "1":
        symbol = names[plain[:-1]]
        return Radiation(f"{symbol}Ka1", TUBES[symbol][0])
    known = [f"{symbol}Ka" for symbol in TUBES]
    near = difflib.get_close_matches(text, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}, or a number in Å"
    raise InputError(f"wavelength = {text[:40]!r}: {hint}")


def scattering(symbols: Sequence[str], squares: Floats, kind: Kind) -> Floats:
    """Return f(s) of elements at values of 1/d^2 (1/Å^2), [n_elements, n]: electrons, or fm for neutrons."""
    rows = []
    for symbol in symbols:
        a, b, c = _coefficients(symbol, kind)
        rows.append(np.exp(-np.multiply.outer(squares / 4, b)) @ a + c)
    return np.array(rows)


@cache
def _coefficients(symbol: str, kind: Kind) -> tuple[Floats, Floats, float]:
    """Return a, b and c of an element; see the module."""
    import gemmi

    element = gemmi.Element(symbol)
    if kind == "neutron":
        length = element.neutron92.calculate_sf(0.0)
        if not length:
            raise InputError(f"{symbol} has no known neutron scattering length")
        return np.zeros(1), np.zeros(1), float(length)
    coefficients = element.it92
    if coefficients is None:
        raise InputError(f"{symbol} has no known X-ray scattering factor")
    return np.array(coefficients.a), np.array(coefficients.b), float(coefficients.c)
