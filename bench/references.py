"""Lookup of known crystals: time and memory, for the library of this package and for larger ones.

python bench/references.py --times 7 --compositions 50

A larger library is the package's, several times over, with the elements of each copy moved on by some places
in the order of their atomic numbers. Prints the number of crystals, the largest memory of a process that
reads it (MB), seconds to read it, and the CPU time of a lookup of 20 candidates (ms; median, 90 %, highest).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from crystallm.crystallography import elements
from crystallm.references.library import Library
from crystallm.references.load import load_library
from crystallm.references.lookup import find_analogues


def copies(library: Library, times: int) -> Library:
    """Return a library with all crystals several times, with other elements."""
    known = sorted(elements.get(symbol).number for symbol in elements.symbols())
    tables = [library.table]
    for step in range(1, times):
        table = dict(zip(known, known[step:] + known[:step], strict=True))
        moved = [bytes(table[number] for number in row) for row in library.table["elements"].to_pylist()]
        index = library.table.column_names.index("elements")
        tables.append(library.table.set_column(index, "elements", pa.array(moved, pa.binary())))
    return Library.joined([Library(table) for table in tables])


def look_up(path: str, n: int) -> str:
    """Return how long it takes to read a library and to look up n of its compositions."""
    started = time.process_time()
    library = Library.read(path)
    rows = np.random.default_rng(0).permutation(len(library))[: n + 5].tolist()
    compositions = [
        dict(zip(member.elements, member.prototype.proportions, strict=True))
        for member in map(library.member, rows)
    ]
    for counts in compositions[:5]:
        find_analogues(library, counts, 20)
    read = time.process_time() - started
    spent = []
    for counts in compositions[5:]:
        started = time.process_time()
        find_analogues(library, counts, 20)
        spent.append(1000 * (time.process_time() - started))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    median, most = np.percentile(spent, [50, 90])
    return (
        f"{len(library):,} crystals: {memory:,.0f} MB, {read:.1f} s to read; "
        f"a lookup {median:.1f} ms, {most:.1f}, {max(spent):.1f} (n = {len(spent)})"
    )


def main() -> None:
    """Print a line for the library of the package, and one for the larger library."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=7)
    parser.add_argument("--compositions", type=int, default=50)
    parser.add_argument("--library")
    options = parser.parse_args()
    if options.library:
        print(look_up(options.library, options.compositions))
        return
    with tempfile.TemporaryDirectory() as folder:
        for times in (1, options.times):
            path = Path(folder) / f"{times}.parquet"
            copies(load_library(), times).write(path)
            command = [sys.executable, __file__, "--library", str(path)]
            subprocess.run([*command, "--compositions", str(options.compositions)], check=True)


if __name__ == "__main__":
    main()
