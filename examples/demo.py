"""Generate crystals of well-known compounds, rank them by energy, and draw the best of each.

python examples/demo.py out/demo

Without CHGNet (pip install 'crystallm[energy]') they are not ranked.
"""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from pyarrow import parquet
from pymatgen.core import Structure

from crystallm.cli import crystal_tables
from crystallm.cli.app import run
from crystallm.storage import files, run_folder
from crystallm.visualization import unit_cell


def main(folder: Path) -> int:
    """Generate crystals into a folder and replace those of an earlier demo."""
    if (folder / run_folder.CONFIG).exists():
        shutil.rmtree(folder)
    requests = Path(__file__).with_name("demo.csv")
    energy = ["--energy", "chgnet"] if find_spec("chgnet") else []
    code = run(["generate", "--requests", str(requests), *energy, "--out", str(folder)])
    if code:
        return code
    rows = parquet.read_table(folder / run_folder.RESULTS).to_pylist()
    drawn = set()
    for row in crystal_tables.best_first(rows):
        if row["request"] in drawn or not row["cif"]:
            continue
        drawn.add(row["request"])
        structure = Structure.from_str(row["cif"], fmt="cif")
        title = f"{row['reduced_formula']}, {row['space_group']}{'' if row['valid'] else ' (not valid)'}"
        picture = folder / f"{row['reduced_formula']}.png"
        files.write_atomically(picture, unit_cell.unit_cell(structure, title=title))
        print(f"picture of {row['file']}: {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/demo")))
