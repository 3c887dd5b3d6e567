"""Relaxation against ASE's: CPU time, steps and minima of the same crystals, one after the other in turns.

    python bench/relaxing.py COLLECTION ... [--free] [--crystals 50] [--out rows.jsonl]

ASE's way: CHGNet's calculator, FIRE on FrechetCellFilter, with FixSymmetry unless `--free`. Collections are
files and folders as `crystallm relax` takes them. One thread; CPU seconds of this process. Prints a line for
each crystal, then the ratio of CPU times with the 95 % interval of bootstrap samples over crystals.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from ase.spacegroup.symmetrize import refine_symmetry
from chgnet.model.dynamics import CHGNetCalculator

from crystallm.energy import registry, relaxation
from crystallm.errors import CrystallmError
from crystallm.sources import collection, parsing
from crystallm.structures.conversion import to_atoms

SAME = 0.001
"""Energies within this are of one minimum, eV/atom."""


class Counted:
    """An energy model that counts its calls."""

    def __init__(self, model: Any) -> None:
        self.name, self.calls, self._model = model.name, 0, model

    def predict(self, structures: Any, *, forces: bool = False) -> Any:
        """Return what the model does."""
        self.calls += 1
        return self._model.predict(structures, forces=forces)


def by_ase(structure: Any, calculator: Any, options: relaxation.RelaxOptions) -> dict[str, Any]:
    """Relax with ASE alone."""
    atoms = to_atoms(structure)
    if options.keep_symmetry:
        refine_symmetry(atoms, relaxation.SYMPREC)
        atoms.set_constraint(FixSymmetry(atoms, relaxation.SYMPREC))
    atoms.calc = calculator
    with FIRE(FrechetCellFilter(atoms), logfile=None) as search:
        converged = search.run(fmax=options.fmax, steps=options.steps)
        energy = float(atoms.get_potential_energy()) / len(atoms)
        return {
            "energy": energy,
            "steps": search.nsteps,
            "calls": search.nsteps + 1,
            "converged": bool(converged),
        }


def by_crystallm(structure: Any, model: Any, options: relaxation.RelaxOptions) -> dict[str, Any]:
    """Relax with crystallm."""
    counted = Counted(model)
    found = relaxation.relax(structure, counted, options)
    return {
        "energy": found.energy,
        "steps": found.steps,
        "calls": counted.calls,
        "converged": found.converged,
    }


def measured(relax: Any, *arguments: Any) -> dict[str, Any]:
    """Return the result, or why there is none, and its CPU seconds."""
    started = time.process_time()
    try:
        found = relax(*arguments)
    except (CrystallmError, ValueError, RuntimeError) as error:
        found = {"failed": str(error)[:80]}
    return found | {"cpu": time.process_time() - started}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("collections", nargs="+", type=Path)
    parser.add_argument("--free", action="store_true", help="do not keep the space group")
    parser.add_argument("--crystals", type=int, default=None)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--fmax", type=float, default=0.05)
    parser.add_argument("--out", type=Path, default=None, help="write the rows there, as JSON lines")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    options = relaxation.RelaxOptions(steps=args.steps, fmax=args.fmax, keep_symmetry=not args.free)
    model = registry.load("chgnet", device="cpu")
    calculator = CHGNetCalculator(use_device="cpu")
    rows = []
    for path in args.collections:
        entries = [entry for entry in collection.read_cifs(path) if entry.text is not None]
        for entry in entries[: args.crystals]:
            structure = parsing.structure(entry.text)
            turns = {
                "ase": (by_ase, structure, calculator, options),
                "crystallm": (by_crystallm, structure, model, options),
            }
            order = list(turns.items())[:: 1 if len(rows) % 2 else -1]
            rows.append({"id": entry.id, "n_atoms": len(structure)} | {k: measured(*v) for k, v in order})
            print(json.dumps(rows[-1]), flush=True)
            if args.out:
                with args.out.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    report(rows)


def report(rows: list[dict[str, Any]]) -> None:
    """Print totals, medians and differences of energies."""
    for name in ("ase", "crystallm"):
        done = [row[name] for row in rows if "failed" not in row[name]]
        print(
            f"{name}: {len(done)} of {len(rows)} relaxed, {sum(x['converged'] for x in done)} converged,",
            f"{sum(row[name]['cpu'] for row in rows):.1f} s of CPU,",
            f"{statistics.median(x['steps'] for x in done):g} steps and",
            f"{statistics.median(x['calls'] for x in done):g} calls of the model in the middle",
        )
    times = np.array([[row["ase"]["cpu"], row["crystallm"]["cpu"]] for row in rows])
    draw = random.Random(0)
    drawn = [times[draw.choices(range(len(rows)), k=len(rows))].sum(axis=0) for _ in range(1000)]
    low, high = np.quantile([old / new for old, new in drawn], [0.025, 0.975])
    total = times.sum(axis=0)
    each = statistics.median(times[:, 0] / times[:, 1])
    print(
        f"{total[0] / total[1]:.2f} times as many a CPU second ({low:.2f} to {high:.2f}), median {each:.2f}"
    )
    both = [row for row in rows if "failed" not in row["ase"] and "failed" not in row["crystallm"]]
    apart = np.array([row["crystallm"]["energy"] - row["ase"]["energy"] for row in both])
    print(
        f"energies of {len(both)}: {int((apart < -SAME).sum())} lower by more than 1 meV/atom,",
        f"{int((abs(apart) <= SAME).sum())} equal, {int((apart > SAME).sum())} higher;",
        f"median {1000 * np.median(apart):.2f}, mean {1000 * apart.mean():.2f} meV/atom",
    )


if __name__ == "__main__":
    main()
