"""How fast crystals are judged, against the plain way: pymatgen's CrystalNN, and a parse for each check.

    python bench/judging.py perov_5/val.csv.gz mp_20/val.csv.gz --entries 200 --repeats 3

The texts are standard texts of known structures. Both ways judge the same texts in turns, in one process and
one thread; time is CPU time. Prints texts a second of both, their ratio (median, least, largest over the
repeats), and how many bond scores and verdicts differ by more than 1e-6.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from itertools import pairwise
from typing import TYPE_CHECKING

from pymatgen.core import Composition, Structure
from pymatgen.core.local_env import CrystalNN
from pymatgen.io.cif import CifParser
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer, SymmetryUndeterminedError

from crystallm.benchmarks.reference_sets import read_references
from crystallm.cif import writer
from crystallm.crystallography import space_groups
from crystallm.errors import CrystallmError
from crystallm.geometry import bonds
from crystallm.validity import checks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

IDENTITY = "1 'x, y, z'"


def with_operators(text: str) -> str:
    """The text with all operators of its group in place of the identity."""
    symbol = text.split("_symmetry_space_group_name_H-M ")[1].split("\n", 1)[0]
    operators = space_groups.get(symbol).xyz_operators
    return text.replace(IDENTITY, "\n".join(f"{i} '{xyz}'" for i, xyz in enumerate(operators, 1)))


def plainly(text: str) -> tuple[float | None, bool]:
    """Bond score and verdict of a text, check by check, each from the text."""
    full = with_operators(text)

    def fields() -> dict[str, object]:
        return dict(next(iter(CifParser.from_str(full).as_dict().values())))

    known = fields()
    lengths = [float(str(known[f"_cell_length_{x}"])) for x in "abc"]
    angles = [float(str(known[f"_cell_angle_{x}"])) for x in ("alpha", "beta", "gamma")]
    sensible = all(0.5 <= x <= 1000 for x in lengths) and all(10 <= x <= 170 for x in angles)
    known = fields()
    names = (text.split("\n", 1)[0].removeprefix("data_"), known["_chemical_formula_sum"])
    names = (*names, known["_chemical_formula_structural"])
    formula = len({Composition(str(name)).reduced_formula for name in names}) == 1
    known = fields()
    counts: dict[str, float] = {}
    symbols, sizes = known["_atom_site_type_symbol"], known["_atom_site_symmetry_multiplicity"]
    for symbol, size in zip(list(symbols), list(sizes), strict=True):  # type: ignore[call-overload]
        counts[symbol] = counts.get(symbol, 0) + float(size)
    multiplicity = counts == Composition(str(known["_chemical_formula_sum"])).get_el_amt_dict()
    score = bond_score(Structure.from_str(full, fmt="cif"))
    try:
        found = SpacegroupAnalyzer(Structure.from_str(full, fmt="cif"), symprec=0.1).get_space_group_symbol()
    except SymmetryUndeterminedError:
        found = None
    group = found == fields()["_symmetry_space_group_name_H-M"]
    return score, sensible and formula and multiplicity and group and score == 1


def bond_score(structure: Structure) -> float | None:
    """Share of reasonable bonds, each atom's neighbours asked of CrystalNN."""
    finder = CrystalNN()
    good = total = 0
    for i, site in enumerate(structure):
        for neighbour in finder.get_nn_info(structure, i):
            j = neighbour["site_index"]
            if j == i:
                continue
            length = site.distance(structure[j])
            try:
                good += bonds._reasonable(site.specie.symbol, structure[j].specie.symbol, length)  # noqa: SLF001
            except CrystallmError:
                return None
            total += 1
    return float(good / total) if total else None


def ours(text: str) -> tuple[float | None, bool]:
    """The same from the package."""
    verdict = checks.check(text)
    return verdict.bond_score, verdict.valid


def seconds(judge: Callable[[str], object], texts: Sequence[str]) -> float:
    """CPU time of judging texts."""
    start = time.process_time()
    for text in texts:
        judge(text)
    return time.process_time() - start


def main() -> None:
    """Judge both ways in turns, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", nargs="+", help="CSV(.gz) or Parquet files with a column 'cif'")
    parser.add_argument("--entries", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    for data in args.data:
        texts = [
            writer.to_text(structure)
            for structure in [entry.structure for entry in read_references(data, entries=args.entries)]
        ]
        pairs = [(plainly(text), ours(text)) for text in texts]
        scores = sum(  # of texts
            (a is None) != (b is None) or (a is not None and b is not None and abs(a - b) > 1e-6)
            for (a, _), (b, _) in pairs
        )
        verdicts = sum(bool(a) != b for (_, a), (_, b) in pairs)
        marks = [0, *(len(texts) * (k + 1) // args.repeats for k in range(args.repeats))]
        runs = [
            (seconds(plainly, texts[a:b]) / (b - a), seconds(ours, texts[a:b]) / (b - a))
            for a, b in pairwise(marks)
        ]
        ratios = sorted(a / b for a, b in runs)
        line = {
            "data": data,
            "texts": len(texts),
            "plain_a_second": 1 / (sum(a for a, _ in runs) / len(runs)),
            "ours_a_second": 1 / (sum(b for _, b in runs) / len(runs)),
            "ratio": ratios[len(ratios) // 2],
            "ratio_least": ratios[0],
            "ratio_largest": ratios[-1],
            "scores_that_differ": scores,
            "verdicts_that_differ": verdicts,
        }
        print(
            json.dumps({k: round(v, 2) if isinstance(v, float) else v for k, v in line.items()}), flush=True
        )


if __name__ == "__main__":
    main()
