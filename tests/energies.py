"""Energy models of which one knows everything, sound and broken ones, for `module:factory` names."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crystallm.energy import Prediction

if TYPE_CHECKING:
    from pymatgen.core import Structure

CUT, EQUILIBRIUM = 6.0, 2.5


class Morse:
    """Morse pairs of depth 0.5 eV at 2.5 Å, cut off smoothly at 6 Å: a sound model without any package."""

    name = "morse"

    def predict(self, structures, *, forces=False):
        return [self.one(structure, forces) for structure in structures]

    def one(self, structure: Structure, forces: bool) -> Prediction:
        center, other, images, length = structure.get_neighbor_list(CUT)
        n = len(structure)
        decay = np.exp(-1.5 * (length - EQUILIBRIUM))
        fade = (1 - (length / CUT) ** 2) ** 2
        pair = 0.5 * (decay**2 - 2 * decay)
        energy = float((pair * fade).sum() / 2 / n)
        if not forces:
            return Prediction(energy)
        slope = (
            0.5 * -3.0 * (decay**2 - decay) * fade - pair * 4 * (1 - (length / CUT) ** 2) * length / CUT**2
        )
        ends = structure.lattice.get_cartesian_coords(structure.frac_coords[other] + images)
        away = ends - structure.cart_coords[center]
        pull = (slope / length)[:, None] * away
        on_atoms = np.zeros((n, 3))
        np.add.at(on_atoms, center, pull)
        return Prediction(energy, on_atoms, pull.T @ away / 2 / structure.volume)


def morse():
    return Morse()


class _Odd(Morse):
    """As the other, but for crystals with a noble gas, which stand for freaks."""

    name = "odd"

    def one(self, structure, forces):
        symbols = {site.specie.symbol for site in structure}
        if "He" in symbols:
            raise ValueError("no helium here")
        if "Ne" in symbols:
            time.sleep(60)
        if "Ar" in symbols:
            return Prediction(float("nan"))
        if "Kr" in symbols:
            return Prediction(-4000.0)
        if "Xe" in symbols:
            os._exit(7)
        return super().one(structure, forces)


def odd():
    return _Odd()


def unloadable():
    raise RuntimeError("the weights are gone")


class _PerCell(Morse):
    def one(self, structure, forces):
        said = super().one(structure, forces)
        return Prediction(said.energy * len(structure), said.forces, said.stress)


class _Gigapascal(Morse):
    def one(self, structure, forces):
        said = super().one(structure, forces)
        return Prediction(said.energy, said.forces, None if said.stress is None else said.stress * 160.2)


class _Uphill(Morse):
    def one(self, structure, forces):
        said = super().one(structure, forces)
        return Prediction(said.energy, None if said.forces is None else -said.forces, said.stress)


class _Backwards(Morse):
    def predict(self, structures, *, forces=False):
        return super().predict(structures, forces=forces)[::-1]


class _One(Morse):
    def predict(self, structures, *, forces=False):
        found = super().predict(structures, forces=forces)
        return found[0] if len(found) == 1 else found


class _Meddling(Morse):
    def one(self, structure, forces):
        structure.translate_sites([0], [0.01, 0, 0])
        return super().one(structure, forces)


class _Float32(Morse):
    def one(self, structure, forces):
        return Prediction(np.float32(super().one(structure, forces).energy))


BROKEN = {
    "divided by atoms": _PerCell,
    "stress .* not the slope": _Gigapascal,
    "forces .* not the slope": _Uphill,
    r"forces have the shape \(2, 3\), not \(8, 3\)": _Backwards,
    "no list": _One,
    "changes the structures": _Meddling,
    "float32, not float": _Float32,
}


class _Nan(Morse):
    def one(self, structure, forces):
        return Prediction(float("nan"))


def nan():
    return _Nan()


class _Mortal(Morse):
    """Dies at its fifth crystal, and so does the process that takes its place."""

    def __init__(self):
        self.calls = 0

    def one(self, structure, forces):
        self.calls += 1
        if self.calls == 5:
            os._exit(7)
        return super().one(structure, forces)


class _Deadly(Morse):
    """Kills its process at every crystal."""

    def one(self, structure, forces):
        os._exit(7)


def deadly():
    return _Deadly()


def mortal():
    return _Mortal()


class _Sleeper(Morse):
    def one(self, structure, forces):
        time.sleep(600)
        return super().one(structure, forces)


def sleeper():
    return _Sleeper()


class _Slow(Morse):
    """Takes a tenth of a second for each crystal."""

    def one(self, structure, forces):
        time.sleep(0.1)
        return super().one(structure, forces)


def slow():
    return _Slow()


class _Told(Morse):
    """Notes each crystal that it is asked about in the file that the environment names.

    Where the environment names a number, too, it waits to be killed behind so many crystals.
    """

    def __init__(self):
        self.left = int(os.environ.get("CRYSTALLM_TEST_WAITS", "-1"))

    def one(self, structure, forces):
        if self.left == 0:
            time.sleep(600)
        self.left -= 1
        with Path(os.environ["CRYSTALLM_TEST_ASKED"]).open("a", encoding="utf-8") as file:
            file.write(f"{structure.volume:.6f} {structure.composition.formula}\n")
        time.sleep(0.02)
        return super().one(structure, forces)


def told():
    return _Told()
