"""Formation energies of crystals, relative to their elements by the same energy model.

    E_f = E - sum_i x_i E_i        eV per atom

x_i the share of element i among the atoms, E_i its energy in its reference crystal (see
`reference_crystals`), which is relaxed with the model, its symmetry kept; where it cannot be, it has none,
and no formation energy either. They are kept in a file (see `cache_folder`), and count as long as the
reference crystals are of this version:

    ~/.cache/crystallm/references/MODEL.json      {"version": 3, "energies": {"Ti": -7.9, ...}}

Delete the file of a model that has changed under the same name.
"""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any

from crystallm.energy import calculations, relaxation
from crystallm.energy import registry as models
from crystallm.errors import CrystallmError
from crystallm.execution.tasks import Failure
from crystallm.storage import files
from crystallm.thermodynamics import reference_crystals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from concurrent.futures import Executor
    from pathlib import Path

    from pymatgen.core import Composition

_LOG = logging.getLogger(__name__)
STEPS = 1000
"""Maximum number of steps to relax a reference crystal, whose energy is stored."""


def place(model: str) -> Path:
    """Return the file with the energies of the elements by a model."""
    return files.cache_folder("references") / f"{re.sub('[^A-Za-z0-9._-]+', '_', model)}.json"


def element_energies(
    symbols: Iterable[str],
    model: str = models.DEFAULT,
    *,
    device: str = "cpu",
    file: Path | None = None,
    executor: Executor | None = None,
) -> dict[str, float]:
    """Return the energies of elements in their reference crystals, eV/atom.

    Args:
        file: that keeps them; by default `place`.

    Returns:
        Those that could be had: none of an element that the model refuses, or whose crystal it cannot relax.

    Raises:
        InputError, CrystallmError: there is no such model or element; the file is damaged or cannot be
            written.
    """
    file = place(model) if file is None else file
    known = _read(file)
    wanted = sorted(set(symbols))
    missing = [symbol for symbol in wanted if symbol not in known]
    if missing:
        found = calculations.relax_all(
            [reference_crystals.element(symbol) for symbol in missing],
            model,
            relaxation.RelaxOptions(steps=STEPS, keep_symmetry=True),
            device=device,
            executor=executor,
        )
        for symbol, one in zip(missing, found, strict=True):
            if isinstance(one, Failure):
                continue
            if one.converged:
                known[symbol] = one.energy
            else:
                said = "%s: the reference crystal of %s is not relaxed after %d steps: no formation energies"
                _LOG.warning(said, model, symbol, one.steps)
        energies = dict(sorted(known.items()))
        files.write_json(file, {"version": reference_crystals.VERSION, "energies": energies})
    return {symbol: known[symbol] for symbol in wanted if symbol in known}


def formation_energy(composition: Composition, energy: float, elements: Mapping[str, float]) -> float | None:
    """Return the formation energy, eV/atom; None if an element has no energy.

    Args:
        energy: its energy, eV per atom.
        elements: energies of its elements, eV per atom.
    """
    shares = composition.fractional_composition.get_el_amt_dict()
    if not shares.keys() <= elements.keys():
        return None
    return energy - sum(share * elements[symbol] for symbol, share in shares.items())


def _read(file: Path) -> dict[str, float]:
    if not file.exists():
        return {}
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
        if found.get("version") != reference_crystals.VERSION:
            return {}  # of other crystals
        return {str(symbol): float(energy) for symbol, energy in found["energies"].items()}
    except OSError as error:
        raise CrystallmError(f"{str(file)!r} cannot be read: {error.strerror or error}") from error
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        raise CrystallmError(f"{str(file)!r} holds no energies of elements: delete it") from None
