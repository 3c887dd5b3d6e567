"""Check whether an object is an energy model: shapes, units and signs, by properties of any energy.

Forces and stress are compared with differences of energies, so a wrong unit or sign shows. Knows no model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crystallm.energy.protocol import problem
from crystallm.errors import CrystallmError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure

    from crystallm.energy.protocol import EnergyModel

_SAME = 1e-3
"""Tolerance of energies of one crystal, eV/atom: for float32 and other cells, not for other physics."""
_STEP = 0.01
"""Step of finite differences: Å of an atom, and 10 times the strain of a cell."""
_ABSOLUTE, _RELATIVE = 0.02, 0.05
"""Tolerance of a derivative: eV/Å, and relative."""


def examples() -> list[Structure]:
    """Return two crystals near their minimum, in which no force is zero by symmetry: NaCl and CsCl types."""
    from pymatgen.core import Lattice, Structure

    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.7), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    sites: list[list[float]] = [[0.0, 0.0, 0.0], [0.47, 0.51, 0.52]]
    chloride = Structure(Lattice.from_parameters(4.1, 4.2, 4.3, 88, 91, 92), ["Cs", "Cl"], sites)
    salt.translate_sites([0], [0.02, 0.01, -0.01])
    return [salt, chloride]


def check(model: EnergyModel, structures: Sequence[Structure] | None = None) -> None:
    """Check whether a model keeps to the protocol.

    Args:
        model: to be looked at.
        structures: two or more different crystals that it can take; None: `examples`.

    Raises:
        CrystallmError: it does not; the message tells all that was found.
        Exception: what the model raises.
    """
    crystals = examples() if structures is None else list(structures)
    name = getattr(model, "name", None)
    found = [] if isinstance(name, str) and name else [f"its name is {name!r}"]
    found += _shapes(model, crystals) or [*_energies(model, crystals), *_derivatives(model, crystals[-1])]
    if found:
        raise CrystallmError(f"{name or type(model).__name__} is no energy model: {'; '.join(found)}")


def _shapes(model: EnergyModel, crystals: Sequence[Structure]) -> list[str]:
    """Check the lengths of lists and shapes of arrays, on which the other checks rely."""
    empty: Any = model.predict([])
    if empty != []:
        return [f"of no structures it says {empty!r}, not []"]
    before = [crystal.copy() for crystal in crystals]
    wrong = []
    for some, forces in ((crystals[:1], False), (crystals, False), (crystals, True)):
        answers: Any = model.predict(some, forces=forces)
        if not isinstance(answers, list) or len(answers) != len(some):
            return [f"of {len(some)} structures it says no list of {len(some)}"]
        for crystal, answer in zip(some, answers, strict=True):
            if not isinstance(answer.energy, float):
                return [f"an energy is {type(answer.energy).__name__}, not float"]
            if said := problem(answer):
                wrong.append(said)
            for what, shape in (("forces", (len(crystal), 3)), ("stress", (3, 3))):
                values = getattr(answer, what)
                if values is not None and getattr(values, "shape", None) != shape:
                    wrong.append(f"{what} have the shape {getattr(values, 'shape', None)}, not {shape}")
    if any(ours != theirs for ours, theirs in zip(before, crystals, strict=True)):
        wrong.append("it changes the structures that it is given")
    return wrong


def _energies(model: EnergyModel, crystals: Sequence[Structure]) -> list[str]:
    """Check that the energy of a crystal depends neither on other crystals, nor on its cell or origin."""
    wrong = []
    together = [answer.energy for answer in model.predict(crystals)]
    alone = [model.predict([crystal])[0].energy for crystal in crystals]
    if _differ(together, alone):
        wrong.append("what it says of a crystal depends on the others in the list")
    if _differ(together[::-1], [answer.energy for answer in model.predict(crystals[::-1])]):
        wrong.append("predictions are not in the order of the structures")
    if _differ(together, [answer.energy for answer in model.predict(crystals, forces=True)]):
        wrong.append("energies differ where forces are asked for")
    if _differ(together, [answer.energy for answer in model.predict([c * (2, 1, 1) for c in crystals])]):
        wrong.append("the energy per atom differs between one cell and two of it: is it divided by atoms?")
    moved = [crystal.copy() for crystal in crystals]
    for crystal in moved:
        crystal.translate_sites(range(len(crystal)), [0.3, 0.1, 0.7])
    if _differ(together, [answer.energy for answer in model.predict(moved)]):
        wrong.append("the energy changes where all atoms are moved alike")
    return wrong


def _derivatives(model: EnergyModel, crystal: Structure) -> list[str]:
    """Check forces and stress against differences of energies."""
    import numpy as np
    from pymatgen.core import Lattice

    (answer,) = model.predict([crystal], forces=True)
    wrong = []
    n, volume = len(crystal), crystal.lattice.volume

    def slope(plus: Structure, minus: Structure, step: float) -> float:
        """Return the derivative of the energy of the cell."""
        up, down = model.predict([plus, minus])
        return n * (up.energy - down.energy) / (2 * step)

    if answer.forces is not None:
        expected = []
        for axis in range(3):
            pair = [crystal.copy(), crystal.copy()]
            for sign, one in zip((1, -1), pair, strict=True):
                one.translate_sites([n - 1], sign * _STEP * np.eye(3)[axis], frac_coords=False)
            expected.append(-slope(pair[0], pair[1], _STEP))
        wrong += _compared("forces", "eV/Å", answer.forces[n - 1], expected, _ABSOLUTE)
    if answer.stress is not None:
        expected, given = [], []
        for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
            pair = []
            for sign in (1, -1):
                strain = np.zeros((3, 3))
                strain[i, j] += sign * _STEP / 20
                strain[j, i] += sign * _STEP / 20
                one = crystal.copy()
                one.lattice = Lattice(crystal.lattice.matrix @ (np.eye(3) + strain))
                pair.append(one)
            expected.append(slope(pair[0], pair[1], _STEP / 10) / volume)
            given.append(answer.stress[i, j])
        wrong += _compared("stress", "eV/Å^3", given, expected, _ABSOLUTE / volume ** (2 / 3))
    return wrong


def _compared(what: str, unit: str, given: Any, expected: Any, absolute: float) -> list[str]:
    import numpy as np

    if np.allclose(given, expected, rtol=_RELATIVE, atol=absolute):
        return []
    values = [" ".join(f"{value:.4g}" for value in side) for side in (given, expected)]
    return [f"{what} {values[0]} are not the slope of the energy, {values[1]} {unit}"]


def _differ(left: Sequence[float], right: Sequence[float]) -> bool:
    return any(abs(a - b) > _SAME for a, b in zip(left, right, strict=True))
