"""Does energy choose right? Of n samples of a composition: the first, the most agreed, the lowest in energy.

    python bench/energy_choice.py mp_20/val.csv.gz --entries 200 -n 20 --relax 3 --out choice

For each known crystal n samples are written, prompted with the composition of its conventional cell, judged,
folded into distinct ones and asked for their energy; the lowest few of each are relaxed. Prints the match
rate and RMSE, as `crystallm benchmark csp` counts them, of six choices: the first sample, the likeliest, the
one most agree on, the lowest energy as written, the same one relaxed, and the lowest energy after relaxation.
Only distinct valid samples are asked about, up to --distinct a composition by agreement. How often the known
crystal, relaxed too, is the lowest of all says whether the model of energies or the samples are to blame.

What each stage found is kept in --out, so that a run that was stopped goes on, as long as the same is asked:
only --first and --workers may differ. Mind that CHGNet has seen the Materials Project, of which MP-20 is a
part.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from crystallm.benchmarks import csp, metrics
from crystallm.benchmarks.reference_sets import read_references, requests_for
from crystallm.crystals import ranking
from crystallm.energy import calculations, relaxation
from crystallm.energy.calculations import score
from crystallm.errors import CrystallmError, TextError
from crystallm.execution.tasks import Failure
from crystallm.generation.generator import Generator
from crystallm.generation.request import SamplingOptions
from crystallm.models import load
from crystallm.storage import files, run_folder
from crystallm.structures import conversion
from crystallm.structures.duplicates import cluster_duplicates
from crystallm.validity import checks

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymatgen.core import Structure

GROUP = 10  # compositions whose crystals are relaxed before the next note is written


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """What a stage found, from its file or by working."""
    if path.is_file():
        return json.loads(path.read_text())
    start = time.monotonic()
    found = make()
    files.write_atomically(path, json.dumps(found).encode())
    print(f"{path.stem}: {time.monotonic() - start:.0f} s", flush=True)
    return found


def same_question(args: argparse.Namespace) -> None:
    """Refuse a folder in which something else was asked."""
    question = {name: value for name, value in vars(args).items() if name not in ("first", "out", "workers")}
    path = args.out / run_folder.CONFIG
    if path.exists():
        try:
            run_folder.check_config(path, question)
        except CrystallmError as error:
            raise SystemExit(str(error)) from None
    elif any(args.out.glob("*.json")):
        raise SystemExit(
            f"{args.out} holds what was found without {run_folder.CONFIG}: choose another folder"
        )
    else:
        files.write_json(path, question)


def written(args: argparse.Namespace, truths: list[Structure]) -> list[list[dict[str, Any]]]:
    """The samples of each known crystal."""
    model = load.load_model(args.model, device="cpu")
    requests = requests_for(truths, args.n, context=model.config.context)
    asked = [i for i, request in enumerate(requests) if request is not None]
    settings = SamplingOptions(model=args.model, seed=args.seed, device="cpu", batch_size=128)
    generator = Generator(model, [request for request in requests if request is not None], settings)
    found: list[list[dict[str, Any]]] = [[] for _ in truths]
    for i, crystals in zip(asked, generator.generate(range(len(asked))), strict=True):
        for crystal in crystals:
            try:
                structure = conversion.to_json(crystal.structure)
            except TextError:
                structure = None
            found[i].append(
                {
                    "structure": structure,
                    "likelihood": crystal.log_likelihood,
                    "text": crystal.checked_text,
                    "volume": None
                    if structure is None
                    else crystal.structure.volume / len(crystal.structure),
                    "cluster": None,
                    "energy": None,
                    "valid": False,
                }
            )
    verdicts = iter(checks.check_many([row["text"] for rows in found for row in rows], workers=args.workers))
    structures = [
        [row["structure"] and conversion.from_json(row["structure"]) for row in rows] for rows in found
    ]
    for rows, clusters in zip(found, cluster_duplicates(structures, workers=args.workers), strict=True):
        for row, cluster in zip(rows, clusters, strict=True):
            row["cluster"] = cluster
            row["valid"] = next(verdicts).valid
    return found


def order(rows: list[dict[str, Any]], by: Any) -> list[int]:
    """Samples of a composition, the best first."""
    ranks = ranking.rank_samples(
        [row["cluster"] for row in rows],
        [row["likelihood"] for row in rows],
        [row["valid"] for row in rows],
        by,
        [row["energy"] for row in rows],
        volumes=[row["volume"] for row in rows],
    )
    return sorted((i for i, rank in enumerate(ranks) if rank is not None), key=lambda i: ranks[i] or 0)


def weighed(args: argparse.Namespace, samples: list[list[dict[str, Any]]]) -> list[list[float | None]]:
    """The energies of distinct valid samples, eV/atom."""
    asked = []
    for k, rows in enumerate(samples):
        first: dict[int, int] = {}
        for i in order(rows, "agreement"):
            if rows[i]["valid"]:
                first.setdefault(rows[i]["cluster"], i)
        asked += [(k, i) for i in list(first.values())[: args.distinct]]
    structures = [conversion.from_json(samples[k][i]["structure"]) for k, i in asked]
    found: list[list[float | None]] = [[None] * len(rows) for rows in samples]
    for (k, i), energy in zip(asked, score(structures, args.energy, workers=args.workers), strict=True):
        found[k][i] = None if isinstance(energy, Failure) else energy
    return found


def relaxed(args: argparse.Namespace, structures: list[Structure]) -> list[dict[str, Any] | None]:
    """What becomes of crystals."""
    options = relaxation.RelaxOptions(steps=args.steps, fmax=args.fmax)
    found = calculations.relax_all(
        structures, args.energy, options, n_workers=args.workers, seconds=args.seconds
    )
    return [
        None
        if isinstance(one, Failure)
        else {
            "structure": conversion.to_json(one.structure),
            "energy": one.energy,
            "converged": one.converged,
        }
        for one in found
    ]


def main() -> None:
    """Write, weigh, relax, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", help="CSV(.gz) or Parquet file with a column 'cif'")
    parser.add_argument("--entries", type=int, default=200)
    parser.add_argument("-n", type=int, default=20)
    parser.add_argument("--first", type=int, default=None, help="relax and compare only so many of them")
    parser.add_argument("--relax", type=int, default=3, help="lowest ones of each composition to relax")
    parser.add_argument("--distinct", type=int, default=20, help="ones of each to ask for energies, at most")
    parser.add_argument("--energy", default="chgnet")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--fmax", type=float, default=0.1, help="eV/A")
    parser.add_argument("--seconds", type=float, default=120.0, help="limit for a relaxation")
    parser.add_argument("--model", default="default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    same_question(args)
    truths = [entry.structure for entry in read_references(args.data, entries=args.entries)]
    samples = kept(args.out / "written.json", lambda: written(args, truths))
    energies = kept(args.out / "energies.json", lambda: weighed(args, samples))
    for rows, values in zip(samples, energies, strict=True):
        for row, value in zip(rows, values, strict=True):
            row["energy"] = value
    truths, samples = truths[: args.first], samples[: args.first]
    lowest = [
        [i for i in order(rows, "energy") if rows[i]["energy"] is not None][: args.relax] for rows in samples
    ]
    after: list[list[dict[str, Any] | None]] = []
    own: list[dict[str, Any] | None] = []
    for start in range(0, len(truths), GROUP):
        part = range(start, min(start + GROUP, len(truths)))

        def work(part: range = part) -> list[Any]:
            crystals = [conversion.from_json(samples[k][i]["structure"]) for k in part for i in lowest[k]]
            crystals += [truths[k].get_primitive_structure() for k in part]
            return relaxed(args, crystals)

        found = kept(args.out / f"relaxed-{start}-{len(part)}.json", work)
        own += found[-len(part) :]
        for k in part:
            after.append(found[: len(lowest[k])])
            found = found[len(lowest[k]) :]
    tell(args, truths, samples, (lowest, after, own))


def tell(
    args: argparse.Namespace,
    truths: list[Structure],
    samples: list[list[dict[str, Any]]],
    minima: tuple[list[list[int]], list[list[dict[str, Any] | None]], list[dict[str, Any] | None]],
) -> None:
    """Print the table."""
    lowest, after, own = minima
    chosen: dict[str, list[list[Any]]] = {}
    for name, by in (("likeliest", "likelihood"), ("most agreed", "agreement"), ("lowest energy", "energy")):
        chosen[name] = [[rows[i]["structure"] for i in order(rows, by)[:1]] for rows in samples]
    chosen["lowest energy, relaxed"] = [
        [row[0] and row[0]["structure"]] if row else [row["structure"] for row in rows[:1]]
        for row, rows in zip(after, samples, strict=True)
    ]
    chosen["lowest after relaxation"] = []
    for row, rows in zip(after, samples, strict=True):
        known = [one for one in row if one is not None]
        best = min(known, key=lambda one: one["energy"], default=None)
        chosen["lowest after relaxation"].append(
            [best["structure"]] if best else [one["structure"] for one in rows[:1]]
        )
    chosen["first"] = [[row["structure"] for row in rows[:1]] for rows in samples]
    chosen[f"any of {args.n}"] = [[row["structure"] for row in rows] for rows in samples]
    print(f"\n{'choice':26} match rate, %   RMSE   ({len(truths)} entries)")
    for name, choices in chosen.items():
        crystals = [[packed and conversion.from_json(packed) for packed in row] for row in choices]
        most = max(map(len, crystals))
        distances = csp.distances(truths, crystals, workers=args.workers)
        rms = [[d.rms if d.passes_smact else None for d in row] for row in distances]
        line = metrics.line(name, most, metrics.best_of(rms, most))
        rate = line.match_rate
        spread = 196 * math.sqrt(rate * (1 - rate) / len(truths))
        print(f"{name:26} {100 * rate:5.1f} ± {spread:.1f}    {line.rmse:.4f}", flush=True)
    both = [
        (min(one["energy"] for one in row if one is not None), known["energy"])
        for row, known in zip(after, own, strict=True)
        if known is not None and any(row)
    ]
    below = sum(ours < known - 0.001 for ours, known in both)
    level = sum(abs(ours - known) <= 0.001 for ours, known in both)
    print(
        f"the known crystal, relaxed, is lower than all ours for {len(both) - below - level}, level within "
        f"1 meV/atom for {level}, higher for {below} of {len(both)}"
    )
    n = sum(map(len, lowest))
    gone = sum(one is None for row in after for one in row)
    done = sum(one["converged"] for row in after for one in row if one is not None)
    print(f"{n} relaxed: {done} converged in {args.steps} steps, {gone} lost")


if __name__ == "__main__":
    main()
