"""One compound a structure class."""

from __future__ import annotations

from functools import cache

from pymatgen.core import Lattice, Structure


def make(group: str, lattice: Lattice, species: str, coords: list[list[float]]) -> Structure:
    return Structure.from_spacegroup(group, lattice, species.split(), coords)


@cache
def examples() -> dict[str, tuple[Structure, tuple[str, ...]]]:
    """One compound a class, and its elements in the order of the roles.

    Lengths in Å and free coordinates are rounded from what is measured of rutile, spinel, elpasolite, Y2Ti2O7
    and SrTiO3.
    """
    corner, middle, eighth = [0, 0, 0], [0.5, 0.5, 0.5], [1 / 8] * 3
    y_ti_o = [middle, corner, [0.329, 1 / 8, 1 / 8], [3 / 8] * 3]
    return {
        "rutile": (
            make("P4_2/mnm", Lattice.tetragonal(4.594, 2.958), "Ti O", [corner, [0.306, 0.306, 0]]),
            ("Ti", "O"),
        ),
        "spinel": (
            make("Fd-3m:2", Lattice.cubic(8.08), "Mg Al O", [eighth, middle, [0.2624] * 3]),
            ("Mg", "Al", "O"),
        ),
        "elpasolite": (
            make("Fm-3m", Lattice.cubic(8.119), "K Na Al F", [[0.25] * 3, middle, corner, [0.219, 0, 0]]),
            ("K", "Na", "Al", "F"),
        ),
        "pyrochlore": (
            make("Fd-3m:2", Lattice.cubic(10.09), "Y Ti O O", y_ti_o),
            ("Y", "Ti", "O"),
        ),
        "perovskite": (
            make("Pm-3m", Lattice.cubic(3.905), "Sr Ti O", [middle, corner, [0.5, 0, 0]]),
            ("Sr", "Ti", "O"),
        ),
    }
