"""Make `src/crystallm/benchmarks/data/well_known.csv`: 70 compounds that people know, and no bundled model.

    python scripts/make_well_known.py CORPUS --read train.csv.gz ...

CORPUS is a Parquet file with the columns id, source, license, reduced_formula, space_group, volume_per_atom,
cif and split, where no formula stands in two splits. The list below was written by hand from what its test
split holds: what has a name, an application or a structure type called after it, of as many
chemistries and space groups as there are, with at most 60 atoms in the conventional cell. The group of a
formula with several polymorphs is the one that the name stands for. Of several rows of one formula and group
the first in SOURCES is taken, and of several of one source the one of least volume per atom.

Files after --read hold other crystals that were read in training: no formula may stand in one of them.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections import Counter
from pathlib import Path

from pyarrow import parquet
from pymatgen.core import Composition, Structure

from crystallm.cif.parser import parse
from crystallm.cif.writer import to_text
from crystallm.sources.splits import read_rows

OUT = Path(__file__).parent.parent / "src/crystallm/benchmarks/data/well_known.csv"
COLUMNS = ("id", "source", "license", "formula", "space_group", "name", "cif")
LICENSES = ("CC-BY-4.0", "CC0-1.0", "MIT", "AMCSD (cite)")
SOURCES = ("mp", "mp_20", "mpts_52", "mp_electrodes", "amcsd", "cod", "aflow", "lemat_bulk", "oqmd", "wbm")
MAX_ATOMS = 60
CHOSEN = """
Sb 166 antimony
BAs 216 boron arsenide
CaS 225 oldhamite
Cr3Si 223 A15 phase
Pt3Fe 221 isoferroplatinum
FeSi2 123 linzhiite
CrSb2 58 marcasite type
FeSb 194 nickeline type
CuSe2 205 krutaite
Cu7S4 62 anilite
FeBr2 164 iron(II) bromide
GaS 194 gallium(II) sulfide
GaBr3 14 gallium tribromide
AgMg 221 caesium chloride type
Mg2Ge 225 magnesium germanide
MoP 187 molybdenum phosphide
NbCr2 227 Laves phase C15
Ni2P 189 nickel phosphide
RhP3 204 skutterudite type
ScH2 225 scandium dihydride
SiF4 217 silicon tetrafluoride
SiH4 14 silane
SrSi2 212 strontium disilicide
ErB2 191 erbium diboride
NdB4 127 neodymium tetraboride
CdO2 205 cadmium peroxide
BaBrCl 62 barium bromide chloride
BeSiP2 122 chalcopyrite type
BiSeI 62 bismuth selenoiodide
AgBiS2 164 matildite
Ag8SnSe6 31 argyrodite type
Ca2Mn3O8 12 calcium manganese oxide
CdIn2O4 227 cadmium indate
CeNbO4 15 fergusonite-beta-(Ce)
Cu3PSe4 31 enargite type
FeMo6S8 148 Chevrel phase
CuGaS2 122 gallite
HfNCl 166 hafnium nitride chloride
LaVO4 141 wakefieldite-(La)
LaMn7O12 204 quadruple perovskite
Li2NiO2 71 lithium nickelate
Mn2VAl 225 Heusler alloy
MnWO4 13 huebnerite
NaZnF3 62 orthorhombic perovskite
FeNb3S6 182 iron in niobium disulfide
Ni3TeO6 146 nickel tellurate
Pb2SO5 12 lanarkite
PrNiBi 216 half-Heusler alloy
SrClF 129 matlockite type
Sr3V2O8 166 palmierite type
CePd2Ge2 139 heavy-fermion ThCr2Si2 type
Ce3Bi4Pt3 220 Kondo insulator
Zr2PbC 194 MAX phase
CoNi2S4 227 siegenite
MgSb2O4 135 schafarzikite type
EuBa2Cu3O7 47 superconductor 123
Cs2NaTbCl6 225 elpasolite type
K2NaCrF6 225 elpasolite type
BaCu2Si2O7 62 spin chain
YBaCo4O7 186 swedenborgite type
Ca2ZnGe2O7 113 melilite type
CoCl2H4O2 12 cobalt(II) chloride dihydrate
KGdW2O8 15 laser crystal KGW
Li2CaGeO4 121 lithium calcium germanate
LiAlSi2O6 15 spodumene
NaLaTiO4 129 Ruddlesden-Popper phase
NaBe4SbO7 186 swedenborgite
RbCa2Ta3O10 123 Dion-Jacobson phase
BiCu2PO6 62 spin ladder
Sr3TaGa3Si2O14 150 langasite type
"""


def main() -> None:
    """Choose, check and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--read", nargs="+", default=[], metavar="FILE")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of pymatgen, on nearly every file
    rows = parquet.read_table(args.corpus, filters=[("split", "=", "test")]).to_pylist()
    read = {formula for path in args.read for formula in formulas(path)}
    made = []
    for line in CHOSEN.split("\n")[1:-1]:
        formula, group, name = line.split(" ", 2)
        reduced = Composition(formula).reduced_formula
        if reduced in read:
            raise SystemExit(f"{formula} has been read in training")
        fit = [row for row in rows if (row["reduced_formula"], row["space_group"]) == (reduced, int(group))]
        if not fit:
            raise SystemExit(f"no {formula} in group {group}")
        row = min(fit, key=lambda row: (place(row["source"]), row["volume_per_atom"]))
        text = parse(to_text(Structure.from_str(row["cif"], fmt="cif")))
        n_atoms = sum(count for _, count in text.composition)
        if n_atoms > MAX_ATOMS or row["license"] not in LICENSES or text.space_group_number != int(group):
            raise SystemExit(f"{formula}: {n_atoms} atoms, {row['license']}, {text.space_group}")
        made.append({**row, "formula": formula, "space_group": text.space_group, "name": name})
    with OUT.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(made)
    print(f"{len(made)} compounds, {OUT.stat().st_size:,} bytes")
    print(Counter(row["source"] for row in made), Counter(row["license"] for row in made))
    print(f"{len({row['space_group'] for row in made})} space groups")


def formulas(path: str) -> set[str]:
    """Reduced formulas of a file of crystals; they stand in a line of every CIF."""
    tag = "_chemical_formula_sum"
    lines = (line for row in read_rows(path) for line in row["text"].splitlines() if line.startswith(tag))
    return {Composition(line.removeprefix(tag).strip(" '\"")).reduced_formula for line in lines}


def place(source: str) -> int:
    """Place of a source in SOURCES; parts of a collection count as the collection."""
    return SOURCES.index(source.split("/", maxsplit=1)[0])


if __name__ == "__main__":
    main()
