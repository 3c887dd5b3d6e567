"""Crystals of the elements, the references of formation energies.

Where the ground state is simple, it is that of ASE's table of reference states (fcc, bcc, hcp, diamond,
A7 and the like), except that carbon is graphite. The others stand here, after R. W. G. Wyckoff, Crystal
Structures, vol. 1 (1963), and J. Donohue, The Structures of the Elements (1974), rounded:

    B    alpha-boron                    P    black phosphorus       Se, Te, S   chains as in trigonal selenium
    C    graphite (0.116 eV/atom below diamond by CHGNet)
    Mn   alpha-manganese, 58 atoms      Ga   alpha-gallium          F, Cl, Br, I   layers of molecules
    Pa   body-centred tetragonal        Pm   double hcp             Pu, He      fcc
    U    alpha-uranium                  Np   alpha-neptunium
    H, N, O   molecules arranged as in alpha-nitrogen

By CHGNet fluorine is 0.12 eV/atom lower in layers than in its own alpha phase. The crystals of S, of H and
O, and of Pu are simpler than the ground states (rings of eight in a cell of 128 atoms; other packings of
molecules; a monoclinic cell). The model gets no magnetic order. Imports ase and pymatgen: import it late.
Does not depend on energies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystallm.errors import CrystallmError, InputError, install

if TYPE_CHECKING:
    from pymatgen.core import Structure

VERSION = 3
"""Of these crystals: energies kept of other ones do not count."""
_RIGHT = (90.0, 90.0, 90.0)
_HEXAGONAL = (90.0, 90.0, 120.0)
_OWN: dict[str, tuple[str, tuple[float, ...], tuple[tuple[float, float, float], ...]]] = {
    "B": (
        "R-3m",
        (4.908, 4.908, 12.567, *_HEXAGONAL),
        ((0.1189, -0.1189, 0.8912), (0.1969, -0.1969, 0.0243)),
    ),
    "C": ("P6_3/mmc", (2.464, 2.464, 6.711, *_HEXAGONAL), ((0.0, 0.0, 0.25), (1 / 3, 2 / 3, 0.25))),
    "P": ("Cmce", (3.3136, 10.478, 4.3763, *_RIGHT), ((0.0, 0.1017, 0.0806),)),
    "S": ("P3_121", (3.9, 3.9, 4.4, *_HEXAGONAL), ((0.22, 0.0, 1 / 3),)),
    "Se": ("P3_121", (4.366, 4.366, 4.954, *_HEXAGONAL), ((0.2254, 0.0, 1 / 3),)),
    "Te": ("P3_121", (4.457, 4.457, 5.929, *_HEXAGONAL), ((0.2636, 0.0, 1 / 3),)),
    "Ga": ("Cmce", (4.519, 7.659, 4.526, *_RIGHT), ((0.0, 0.1549, 0.081),)),
    "F": ("Cmce", (6.376, 4.184, 7.08, *_RIGHT), ((0.0, 0.0875, 0.096),)),
    "Cl": ("Cmce", (6.145, 4.395, 8.154, *_RIGHT), ((0.0, 0.117, 0.1054),)),
    "Br": ("Cmce", (6.737, 4.548, 8.761, *_RIGHT), ((0.0, 0.135, 0.11),)),
    "I": ("Cmce", (7.136, 4.686, 9.784, *_RIGHT), ((0.0, 0.1543, 0.1174),)),
    "Mn": (
        "I-43m",
        (8.911, 8.911, 8.911, *_RIGHT),
        ((0.0, 0.0, 0.0), (0.3179,) * 3, (0.3571, 0.3571, 0.0347), (0.0897, 0.0897, 0.2821)),
    ),
    "Pa": ("I4/mmm", (3.925, 3.925, 3.238, *_RIGHT), ((0.0, 0.0, 0.0),)),
    "Pm": ("P6_3/mmc", (3.65, 3.65, 11.65, *_HEXAGONAL), ((0.0, 0.0, 0.0), (1 / 3, 2 / 3, 0.25))),
    "U": ("Cmcm", (2.854, 5.869, 4.955, *_RIGHT), ((0.0, 0.1025, 0.25),)),
    "Np": ("Pnma", (6.663, 4.723, 4.887, *_RIGHT), ((0.036, 0.25, 0.208), (0.319, 0.25, 0.842))),
    "Pu": ("Fm-3m", (4.637, 4.637, 4.637, *_RIGHT), ((0.0, 0.0, 0.0),)),
    "He": ("Fm-3m", (4.24, 4.24, 4.24, *_RIGHT), ((0.0, 0.0, 0.0),)),
    "H": ("Pa-3", (5.31, 5.31, 5.31, *_RIGHT), ((0.0402,) * 3,)),
    "N": ("Pa-3", (5.66, 5.66, 5.66, *_RIGHT), ((0.0561,) * 3,)),
    "O": ("Pa-3", (5.45, 5.45, 5.45, *_RIGHT), ((0.0641,) * 3,)),
}
"""Space group, cell (Å, degrees) and an atom of each orbit."""


def element(symbol: str) -> Structure:
    """Return the reference crystal of an element; see the module.

    Raises:
        InputError: there is none of that element.
    """
    from pymatgen.core import Lattice, Structure

    if symbol in _OWN:
        group, cell, atoms = _OWN[symbol]
        lattice = Lattice.from_parameters(*cell)
        own = Structure.from_spacegroup(group, lattice, [symbol] * len(atoms), atoms)
        return own.get_primitive_structure()
    try:
        from ase.build import bulk
    except ImportError:
        raise CrystallmError(f"formation energies need ase: {install('energy')}") from None
    from crystallm.structures.conversion import to_structure

    try:
        return to_structure(bulk(symbol))
    except (KeyError, ValueError, NotImplementedError, TypeError):
        raise InputError(f"no reference crystal of {symbol!r}: there are those of 89 elements") from None
