"""The 89 elements with a token: symbols, radii, electronegativities, volumes.

The table is the one of the published texts: CrystaLLM (Antunes et al., Nat. Commun. 15, 10570, 2024), whose
numbers are those of pymatgen 2023.3.23. Later libraries hold other values (Mn's ionic radius, for one), but
networks were trained on these. The volumes of atoms were fitted by `scripts/make_volumes.py` and are fixed
for the same reason: the orbits language encodes cells in units of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import isnan

from crystallm.errors import InputError

SYMBOLS_BY_NUMBER = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb "
    "Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu "
    "Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db "
    "Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og "
).split()
"""All 118 symbols, hydrogen first, to distinguish elements without a token from other strings."""

DOUBLED = frozenset(
    [("H",), ("N",), ("O",), ("F",), ("Cl",)] + [(metal, "O") for metal in ("Li", "Na", "K", "Rb", "Cs", "H")]
)
"""Elements, by rising electronegativity, that in equal numbers form a molecule or ion of two like atoms, O2
or Na2O2, and are not reduced further, as in pymatgen's Composition.reduced_formula. Calomel, Hg2Cl2 to a
chemist,
is HgCl there and so here."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element.

    Attributes:
        electronegativity: Pauling's scale; NaN for He, Ne and Ar, which have none (so that no comparison
            with them holds, as in the bond score of the paper).
        printed: electronegativity, radius (Å) and average ionic radius (Å) as CIF texts print them. For
            He, Ne and Ar the first is Allen's value.
        atomic_radius: Slater's, Å; None where there is none (He, Ne, Kr, Xe).
        average_ionic_radius: mean of Shannon's radii over all oxidation states, Å; 0 where there are none.
        average_cationic_radius: the same over positive states, Å; 0 where there are none.
        average_anionic_radius: the same over negative states, Å; 0 where there are none.
        covalent_radius: Cordero et al., Dalton Trans. 2832, 2008, Å; mean of low and high spin.
        volume: share of an atom in the volume of a crystal, Å^3, whatever its neighbors: for real cells V,
            sum(volumes) / V has a deviation of 21 %.
    """

    symbol: str
    number: int
    electronegativity: float
    printed: tuple[str, str, str]
    atomic_radius: float | None
    average_ionic_radius: float
    average_cationic_radius: float
    average_anionic_radius: float
    covalent_radius: float
    volume: float


@cache
def _table() -> dict[str, Element]:
    """Return the elements by symbol, in the order of their tokens."""
    rows = json.loads(
        (files("crystallm.crystallography") / "data" / "elements.json").read_text(encoding="ascii")
    )
    return {
        symbol: Element(symbol, number, float("nan") if x is None else x, tuple(printed), *sizes)
        for symbol, (number, x, printed, *sizes) in rows.items()
    }


@cache
def symbols() -> tuple[str, ...]:
    """Return the 89 elements with a token, in the order of the vocabulary."""
    return tuple(_table())


def get(symbol: str) -> Element:
    """Return the element of a symbol.

    Raises:
        InputError: no such element, or one without a token (Po, At, Rn, Fr, Ra, Am and heavier).
    """
    element = _table().get(symbol)
    if element is not None:
        return element
    if symbol in SYMBOLS_BY_NUMBER:
        raise InputError(
            f"the element {symbol} (Z = {SYMBOLS_BY_NUMBER.index(symbol) + 1}) has no token: the language "
            "covers H to Pu without Po, At, Rn, Fr and Ra"
        )
    raise InputError(f"{symbol[:20]!r} is not an element: write a symbol of the periodic table such as Na")


@cache
def _rank() -> dict[str, int]:
    """Return the rank of each element by rising electronegativity.

    Equal values are in alphabetical order, as in the published texts (K before Rb, Ir before Os before Ru).
    He, Ne and Ar, without a Pauling value, come last, as pymatgen has them.
    """
    table = _table()
    order = sorted(table, key=lambda s: (float("inf") if isnan(x := table[s].electronegativity) else x, s))
    return {symbol: rank for rank, symbol in enumerate(order)}


def rank(symbol: str) -> tuple[int, str]:
    """Return a key that sorts elements as printed formulas do; those without a token are last."""
    ranks = _rank()
    return ranks.get(symbol, len(ranks)), symbol


def electronegativity_order(symbols: Iterable[str]) -> list[str]:
    """Return symbols by rising electronegativity, equal values alphabetically, as in printed formulas.

    Raises:
        InputError: a symbol without a token.
    """
    rank = _rank()
    return sorted(symbols, key=lambda symbol: rank[get(symbol).symbol])
