"""What an energy model is, and where to find one by its name.

    chgnet            CHGNet 0.3.0, whose weights come with its package
    sevennet          SevenNet-0, likewise
    module:factory    what this function returns: any ASE calculator, or an energy model
    tcp://host:port   what answers there, see `exchange`

Refuses to know what is done with energies, and how a model can fail: see `scoring`.
"""

from __future__ import annotations

import inspect
import math
import warnings
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from crystallm.errors import CrystallmError, InputError, install

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from pymatgen.core import Structure

DEFAULT = "chgnet"
BOUND = 100.0
"""|E| in eV per atom beyond which an energy is no energy. Tungsten's -13 (PBE, Materials Project, mp-91) is
about the lowest that is real; what a model says of atoms on top of each other is not bounded by anything."""
_BUILT_IN = {
    "chgnet": ("crystallm.energy.chgnet:ChgnetModel", ("chgnet", "ase"), install("energy")),
    "sevennet": ("crystallm.energy.ase_model:sevennet", ("sevenn", "ase"), "pip install sevenn"),
}
"""For each name what makes the model, the packages that it needs, and how one gets them."""

_REMOTE = "tcp://"


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one crystal.

    Attributes:
        energy: eV per atom.
        forces: on each atom, -dE/dx, eV/Å, (n_atoms, 3); None where the model has none or was not asked.
        stress: of the cell, (1/V) dE/de for the symmetric strain e of the rows of the lattice,
            eV/Å^3, (3, 3); negative where the cell wants to grow. None likewise.
    """

    energy: float
    forces: NDArray[np.float64] | None = None
    stress: NDArray[np.float64] | None = None


class EnergyModel(Protocol):
    """A model of the energy of crystals; `check` looks whether an object is one."""

    @property
    def name(self) -> str:
        """Of the model, for a person."""

    def predict(self, structures: Sequence[Structure], *, forces: bool = False) -> list[Prediction]:
        """What the model says of crystals.

        Args:
            structures: ordered ones, which stay as they are; may be none.
            forces: whether forces and stress are wanted too, where the model has them.

        Returns:
            A prediction a structure, in their order. Each is what it would be without the others.

        Raises:
            Exception: any, if the model can't take one of them: whoever needs the others asks again.
        """


def require(name: str) -> None:
    """Look whether there is such a model, without loading anything heavy.

    Raises:
        InputError: there is none of that name, or its module is not found.
        CrystallmError: it needs a package that is not installed.
    """
    if name in _BUILT_IN:
        _, packages, mend = _BUILT_IN[name]
        missing = [package for package in packages if find_spec(package) is None]
        if missing:
            raise CrystallmError(f"the energy model {name!r} needs {' and '.join(missing)}: {mend}")
        return
    if name.startswith(_REMOTE):
        if find_spec("zmq") is None:
            raise CrystallmError(f"the energy model {name!r} needs pyzmq: {install('zmq')}")
        return
    module, colon, factory = name.partition(":")
    if not colon or not all(part.isidentifier() for part in [*module.split("."), *factory.split(".")]):
        raise InputError(
            f"no energy model {name!r}: there are {', '.join(_BUILT_IN)}, and module:factory for any ASE "
            "calculator"
        )
    try:
        found = find_spec(module)
    except ImportError:  # of a package above it
        found = None
    if found is None:
        raise InputError(f"energy model {name!r}: no module {module!r}; is its folder on PYTHONPATH?")


def load(name: str = DEFAULT, *, device: str = "auto") -> EnergyModel:
    """The energy model of that name.

    Args:
        name: see the module. A factory is called without arguments, or with `device` where it takes one.
        device: 'cpu', 'cuda', 'cuda:1' or 'auto', which takes a GPU where there is one.

    Raises:
        InputError, CrystallmError: as `require`; the factory returns something else, or there is no such
            device.
    """
    require(name)
    if name.startswith(_REMOTE):
        from crystallm.energy.exchange import ZmqModel

        return ZmqModel(name)
    path = _BUILT_IN[name][0] if name in _BUILT_IN else name
    module, _, attribute = path.partition(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what these packages import
        try:
            factory: Any = import_module(module)
            for part in attribute.split("."):
                factory = getattr(factory, part)
        except AttributeError:
            raise InputError(f"energy model {name!r}: {module!r} has no {attribute!r}") from None
        made = factory(device=device) if _takes_device(factory) else factory()
    if hasattr(made, "predict"):
        model: EnergyModel = made
        return model
    if hasattr(made, "get_potential_energy"):
        if find_spec("ase") is None:
            raise CrystallmError(f"energy model {name!r} needs ase: {install('energy')}")
        from crystallm.energy.ase_model import AseModel

        return AseModel(made, name)
    raise InputError(
        f"energy model {name!r} gave {type(made).__name__}: neither an ASE calculator nor an energy model"
    )


def problem(prediction: Prediction, bound: float = BOUND) -> str:
    """What is wrong with the numbers of a prediction, in a few words; "" for nothing.

    Args:
        prediction: of a model.
        bound: on |E|, eV per atom.
    """
    energy = float(prediction.energy)
    if not math.isfinite(energy):
        return f"the energy is {energy}"
    if abs(energy) > bound:
        return f"the energy is {energy:.4g} eV/atom, out of bounds (±{bound:g})"
    for name, values in (("forces", prediction.forces), ("stress", prediction.stress)):
        if values is not None and not all(map(math.isfinite, values.ravel().tolist())):
            return f"the {name} are not all numbers"
    return ""


def _takes_device(factory: Any) -> bool:
    try:
        return "device" in inspect.signature(factory).parameters
    except (TypeError, ValueError):  # built-in ones tell nothing
        return False
