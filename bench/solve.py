"""How often is the crystal of a powder pattern found? On simulated patterns of a benchmark, and measured.

    python bench/solve.py simulated mp_20/val.csv.gz --references train.parquet --entries 100 --out val.jsonl
    python bench/solve.py measured patterns/ --tier 1 --out measured.jsonl
    python bench/solve.py report val.jsonl

Simulated: the composition of each entry, and its pattern (Cu K-alpha, 1.54184 Å, 5 to 90 degrees, steps of
0.02, pseudo-Voigt peaks 0.1 degrees wide, the highest of 10,000 counts above 100 of background, Poisson
noise). Three answers are compared with the entry by StructureMatcher(stol=0.5, angle_tol=10, ltol=0.3): the
likeliest crystal of the composition alone, the first answer for the pattern, and, as a control, the first
answer for the pattern of another entry. The library must not hold the entries: build it from the training
split.

With --strain the crystal of each pattern is stretched at random, its lengths by 0.5 % (one standard
deviation). With --second SHARE each pattern has another entry's in it, by this share of the mass.

Measured: a folder with index.csv (name, formula, wavelength, radiation, tier), patterns/, structures/. With
--leave-out formula, crystals of the formula are left out of the library, so that relatives alone are known.

A killed run resumes: entries of --out are not solved again.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
from pymatgen.core import Structure

from crystallm.benchmarks.reference_sets import read_references
from crystallm.diffraction.options import PatternOptions, SolveOptions, SolveReferenceOptions
from crystallm.diffraction.pattern import PowderPattern
from crystallm.diffraction.radiation import radiation_of
from crystallm.diffraction.solution import candidates, solve
from crystallm.errors import CrystallmError, quiet_libraries
from crystallm.execution.pool import Inline
from crystallm.generation.request import SamplingOptions
from crystallm.references import load
from crystallm.references.library import reduced
from crystallm.structures.comparison import CSP, EQUAL, matcher

if TYPE_CHECKING:
    from collections.abc import Iterator

WAVELENGTH, WIDTH, COUNTS, BACKGROUND = 1.54184, 0.1, 1e4, 100.0
N_ANSWERS = 20


ANGLES = np.arange(5, 90.001, 0.02)


def simulated(structure: Structure, seed: int, second: Structure | None, share: float) -> PowderPattern:
    """Return a simulated pattern, with a share of a second crystal; see the head of this file."""
    counts = peaks(structure)
    if second is not None:
        counts = (1 - share) * counts + share * peaks(second)
    counts = counts / counts.max() * COUNTS + BACKGROUND
    return PowderPattern(ANGLES, np.random.default_rng(seed).poisson(counts).astype(float))


def peaks(structure: Structure) -> Any:
    """Return the peaks of one gram of a crystal, in any unit."""
    from pymatgen.analysis.diffraction.xrd import XRDCalculator

    lines = XRDCalculator(WAVELENGTH).get_pattern(structure, two_theta_range=(2, 93), scaled=False)
    counts = np.zeros_like(ANGLES)
    for angle, intensity in zip(lines.x, lines.y, strict=True):
        t = (ANGLES - angle) / WIDTH
        counts += intensity * (1 / np.pi / (1 + 4 * t**2) + np.sqrt(np.log(2) / np.pi) * 2 ** (-4 * t**2))
    return counts / (structure.volume * structure.composition.weight)


def strained(structure: Structure, seed: int, strain: float) -> Structure:
    """Return a crystal with other lengths; the angles and the ties of its crystal system stay."""
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    with quiet_libraries():
        cell = SpacegroupAnalyzer(structure, 0.1).get_conventional_standard_structure()
    lengths = np.array(cell.lattice.abc)
    stretch = np.exp(np.random.default_rng(seed).normal(size=3) * strain)
    equal = [min(j for j in range(3) if abs(lengths[i] / lengths[j] - 1) < 1e-3) for i in range(3)]
    lattice = type(cell.lattice).from_parameters(*(lengths * stretch[equal]), *cell.lattice.angles)
    return Structure(lattice, cell.species, cell.frac_coords)


def distance(truth: Structure, answer: Structure, *, strict: bool = False) -> float | None:
    """Return the normalized rms distance of an answer; None if it does not match."""
    with quiet_libraries():
        found = matcher(EQUAL if strict else CSP).get_rms_dist(truth, answer)
    return None if found is None else float(found[0])


def options_of(arguments: argparse.Namespace, formula: str) -> SolveOptions:
    """Return the options of one entry."""
    return SolveOptions(formula=formula, candidates=arguments.candidates, answers=N_ANSWERS)


def solved(
    pattern: PowderPattern, wavelength: str, options: SolveOptions, known: Any, kind: str
) -> dict[str, Any]:
    """Return answers, whether they fit, and the time it took."""
    start = time.perf_counter(), time.process_time()
    radiation = radiation_of(wavelength, kind)  # type: ignore[arg-type]
    try:
        solution = solve.solve_pattern(
            pattern, radiation, options, SamplingOptions(device="cpu"), known, executor=Inline()
        )
    except CrystallmError as error:
        return {
            "fits": False,
            "partly": False,
            "conclusion": str(error),
            "answers": [],
            "tried": 0,
            "seconds": 0.0,
            "cpu": 0.0,
        }
    return {
        "fits": solution.fits,
        "partly": solution.partly,
        "conclusion": solution.conclusion,
        "answers": list(solution.answers),
        "tried": solution.n_tried,
        "seconds": time.perf_counter() - start[0],
        "cpu": time.process_time() - start[1],
    }


def record(found: dict[str, Any], truth: Structure) -> dict[str, Any]:
    """Return what is stored of a solution: for each answer its distance and likeness."""
    distances = [distance(truth, answer.structure) for answer in found["answers"]]
    answers = [
        {
            "rms": rms,
            "strict": None if rms is None else distance(truth, answer.structure, strict=True),
            "group": answer.refined.group.number,
            "rwp": answer.likeness.rwp,
            "expected": answer.likeness.expected,
            "similarity": answer.likeness.similarity,
            "rest": answer.likeness.share_unexplained,
            "part": answer.likeness.fits_in_part,
            "explained": [answer.likeness.rwp_explained, answer.likeness.similarity_explained],
            "score": answer.score,
        }
        for answer, rms in zip(found["answers"], distances, strict=True)
    ]
    return {**found, "answers": answers}


def run_simulated(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the results of entries of a benchmark."""
    entries = read_references(arguments.place, entries=arguments.entries)
    known = SolveReferenceOptions(crystals_from=arguments.crystals_from, references=arguments.references)
    relatives = known.model_copy(update={"crystals_from": "references"})
    for i, entry in enumerate(entries[: arguments.first]):
        if i % arguments.parts != arguments.part or entry.id in arguments.done:
            continue
        truth, other = entry.structure, entries[i - len(entries) // 2].structure
        options = options_of(arguments, truth.composition.reduced_formula)
        result: dict[str, Any] = {"name": entry.id, "formula": options.formula}
        if not arguments.no_alone:
            request = candidates.requests_of(options)[str(options.formula)]
            likely = candidates.candidates_of(request, SamplingOptions(), relatives, N_ANSWERS)
            result["alone"] = [distance(truth, crystal.generated) for crystal in likely]
        if arguments.strain:
            truth = strained(truth, i, arguments.strain)
        second = other if arguments.second else None
        for kind, crystal in (("pattern", truth), ("control", other)):
            if kind == "control" and i >= arguments.controls:
                continue
            pattern = simulated(crystal, i, second, arguments.second)
            result[kind] = record(solved(pattern, str(WAVELENGTH), options, known, "xray"), truth)
        yield result


def run_measured(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the results of measured patterns."""
    folder = Path(arguments.place)
    with (folder / "index.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["tier"] in arguments.tier.split(",")]
    whole = load.load_library(arguments.references)
    for row in rows[arguments.part :: arguments.parts]:
        if row["name"] in arguments.done:
            continue
        truth = Structure.from_file(folder / "structures" / f"{row['name']}.cif").remove_oxidation_states()
        formula = truth.composition.reduced_formula
        if arguments.leave_out == "formula":
            counts = {str(symbol): round(n) for symbol, n in truth.composition.get_el_amt_dict().items()}
            library, _ = whole.without(formulas={reduced(counts)})
            mock.patch.object(candidates, "load_library", lambda _, library=library: library).start()
        neutrons = row["radiation"].startswith("neutron")
        lab = row["radiation"].startswith("lab Cu")
        wavelength = "CuKa" if lab else "MoKa" if row["radiation"].startswith("lab Mo") else row["wavelength"]
        known = SolveReferenceOptions(crystals_from=arguments.crystals_from)
        measured = PatternOptions(
            pattern=folder / "patterns" / f"{row['name']}.csv",
            wavelength=wavelength,
            radiation="neutron" if neutrons else "xray",
        )
        pattern, _ = candidates.open_pattern(measured)
        found = solved(pattern, wavelength, options_of(arguments, formula), known, measured.radiation)
        yield {"name": row["name"], "formula": formula, "pattern": record(found, truth)}


def report(paths: list[Path]) -> None:
    """Print rates of files of results."""
    rows = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    print(f"{len(rows)} entries")
    for kind in ("pattern", "control"):
        results = [row[kind] for row in rows if kind in row]
        if not results:
            continue
        first = [r["answers"][0]["rms"] if r["answers"] else None for r in results]
        print(f"{kind}: match at 1 {rate(first)}", end="")
        print(f", at {N_ANSWERS} {rate([least([a['rms'] for a in r['answers']]) for r in results])}", end="")
        print(
            f", strictly at 1 {rate([r['answers'][0]['strict'] if r['answers'] else None for r in results])}"
        )
        right = sum(r["fits"] == (m is not None) for r, m in zip(results, first, strict=True))
        print(f"  says that it fits: {sum(r['fits'] for r in results)}; rightly fits or not: {right}")
        partly = [m is not None for r, m in zip(results, first, strict=True) if r.get("partly")]
        print(f"  says that it fits in part: {len(partly)}, of these right: {sum(partly)}")
        times = np.array([r["seconds"] for r in results]), np.array([r["cpu"] for r in results])
        print(f"  seconds: median {np.median(times[0]):.1f}, 90 % {np.quantile(times[0], 0.9):.1f}", end="")
        print(f"; of the processor: median {np.median(times[1]):.1f}, 90 % {np.quantile(times[1], 0.9):.1f}")
    alone = [row["alone"] for row in rows if "alone" in row]
    if alone:
        print(f"composition alone: match at 1 {rate([a[0] if a else None for a in alone])}", end="")
        print(f", at {N_ANSWERS} {rate([least(a) for a in alone])}")


def least(values: list[float | None]) -> float | None:
    """Return the smallest number; None if there is none."""
    return min((value for value in values if value is not None), default=None)


def rate(values: list[float | None]) -> str:
    """Return the share of numbers and their mean."""
    numbers = [value for value in values if value is not None]
    share = 100 * len(numbers) / len(values)
    return f"{len(numbers)}/{len(values)} = {share:.1f} %, RMSE {np.mean(numbers or [np.nan]):.4f}"


def main() -> None:
    """Read the arguments, and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("simulated", "measured", "report"))
    parser.add_argument("place", nargs="+")
    parser.add_argument("--references", nargs="*", default=())
    parser.add_argument("--from", dest="crystals_from", default="references")
    parser.add_argument("--leave-out", choices=("nothing", "formula"), default="nothing")
    parser.add_argument("--tier", default="1")
    parser.add_argument("--entries", type=int, default=100)
    parser.add_argument("--first", type=int, help="of the entries, how many are solved; default: all")
    parser.add_argument("--candidates", type=int, default=40)
    parser.add_argument("--controls", type=int, default=10**9, help="of the entries, how many have a control")
    parser.add_argument("--no-alone", action="store_true", help="leave out the composition alone")
    parser.add_argument("--strain", type=float, default=0.0)
    parser.add_argument("--second", type=float, default=0.0)
    parser.add_argument("--part", type=int, default=0, help="of --parts, for processes side by side")
    parser.add_argument("--parts", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("solve.jsonl"))
    arguments = parser.parse_args()
    if arguments.what == "report":
        report(list(map(Path, arguments.place)))
        return
    (arguments.place,) = arguments.place
    arguments.done = set()
    if arguments.out.exists():
        arguments.done = {json.loads(line)["name"] for line in arguments.out.read_text().splitlines()}
    run = run_simulated if arguments.what == "simulated" else run_measured
    for result in run(arguments):
        with arguments.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        found = result["pattern"]
        best = found["answers"][0] if found["answers"] else {"rms": None, "rwp": 1.0}
        print(
            result["name"],
            result["formula"],
            f"{best['rms']}, Rwp {best['rwp']:.3f}, {found['seconds']:.0f} s",
            flush=True,
        )
    report([arguments.out])


if __name__ == "__main__":
    main()
