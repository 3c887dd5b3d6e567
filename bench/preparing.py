"""How fast, how flat and how safe collections become training data.

    python bench/preparing.py ratio perov_5/val.csv.gz mp_20/val.csv.gz --entries 300 --repeats 5
    python bench/preparing.py scale corpus.parquet --rows 100000
    python bench/preparing.py scale corpus.parquet --rows 1000000 --without-tokens
    python bench/preparing.py kills perov_5/val.csv.gz --kills 10
    python bench/preparing.py cluster perov_5/val.csv.gz

`ratio`: structures to standard texts, and texts to tokens, against the plain way (pymatgen's CifParser and
CifWriter(symprec=0.1) with edits by regular expressions; a tokenizer that tries the longest token first),
in turns, one thread, CPU time.
`scale`: a collection repeated in random orders with new ids, deduplication off: rows a second of CPU in each
tenth (seconds of the clock with several processes), and the peak memory of a process.
`kills`: kill -9 at random moments, then a finish; `cluster`: four local Dask workers, one of them killed.
Both compare all files with those of an undisturbed run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crystallm.cif import structure_reader, tokenizer
from crystallm.cif import writer as cif_writer
from crystallm.datasets import prepare
from crystallm.datasets.options import PrepareOptions
from crystallm.sources import splits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from crystallm.execution.progress import Progress

warnings.simplefilter("ignore")

# --- ratio ---


def plain_text(text: str) -> str:
    """The standard text of a CIF by pymatgen alone and edits of what it writes."""
    from pymatgen.core import Composition, Element, Structure
    from pymatgen.io.cif import CifWriter

    written = str(CifWriter(Structure.from_str(text, fmt="cif"), symprec=0.1))
    counts = Composition(re.search(r"_chemical_formula_sum\s+'?([^'\n]+)", written)[1])  # type: ignore[index]
    order = sorted(counts, key=lambda element: element.X)
    head = "data_" + "".join(f"{element.symbol}{int(counts[element])}" for element in order)
    lines = ["loop_", "_atom_type_symbol", "_atom_type_electronegativity", "_atom_type_radius"]
    lines.append("_atom_type_ionic_radius")
    for element in map(Element, (e.symbol for e in order)):
        values = (element.X, float(element.atomic_radius or 0), float(element.average_ionic_radius))
        lines.append(" ".join((element.symbol, *(f"{value:.4f}" for value in values))))
    written = re.sub(r"^#.*\n", "", written, flags=re.MULTILINE)
    written = re.sub(r"^data_.*$", "\n".join((head, *lines)), written, count=1, flags=re.MULTILINE)
    written = re.sub(r"(?<=_symmetry_equiv_pos_as_xyz\n)(?:\s+\d+\s+'.*'\n)+", "1 'x, y, z'\n", written)
    written = re.sub(r"\d+\.\d{5,}", lambda number: f"{float(number[0]):.4f}", written)
    written = re.sub(r"(?m)(?<=\d)  1$", " 1.0", written)
    stripped = (re.sub(r"[ \t]+", " ", line.strip()) for line in written.splitlines())
    return "\n".join(line for line in stripped if line) + "\n\n"


@cache
def _plain_tokens() -> tuple[list[str], dict[str, int]]:
    tokens = list(tokenizer.vocabulary())
    return sorted(tokens, key=len, reverse=True), {token: i for i, token in enumerate(tokens)}


def plain_ids(text: str) -> list[int]:
    """Ids by one alternation of all tokens, the longest first, made for each text."""
    tokens, ids = _plain_tokens()
    text = re.sub(r"[ \t]+", " ", text)
    text = re.sub(r"(_symmetry_space_group_name_H-M )(\S+)", r"\1\2_sg", text)
    pattern = "(" + "|".join(re.escape(token) for token in tokens) + r"|\w+|[\.,;!?])"
    found = re.findall(pattern, text)
    return [ids.get(token, ids["<unk>"]) for token in found]


def cpu(function: Callable[[str], object], texts: Sequence[str]) -> float:
    """Texts a second of CPU."""
    start = time.process_time()
    for text in texts:
        function(text)
    return len(texts) / (time.process_time() - start)


def ratio(args: argparse.Namespace) -> None:
    """Print both speeds and how they compare."""

    def anew(text: str) -> list[int]:
        """Ids of a text, lines remembered from this round's texts only."""
        if text is ours[0]:
            tokenizer.forget()
        return tokenizer.encode(text)

    for path in args.data:
        rows = [row["text"] for row in splits.read_rows(path)]
        texts = random.Random(0).sample(rows, min(args.entries, len(rows)))
        ours = [cif_writer.to_text(structure_reader.structure(text)) for text in texts]
        same = sum(plain_text(text) == our for text, our in zip(texts[:100], ours[:100], strict=True))
        equal = sum(plain_ids(our) == tokenizer.encode(our) for our in ours)
        sides = {
            "to texts": (
                lambda text: cif_writer.to_text(structure_reader.structure(text)),
                plain_text,
                texts,
            ),
            "to tokens": (anew, plain_ids, ours),
        }
        print(
            f"{path}: {same} of {len(texts[:100])} texts and {equal} of {len(ours)} token lists are the same"
        )
        for name, (our, plain, what) in sides.items():
            pairs = [(cpu(our, what), cpu(plain, what)) for _ in range(args.repeats)]
            fast, slow = np.median(pairs, axis=0)
            ratios = sorted(a / b for a, b in pairs)
            print(
                f"  {name}: {fast:,.0f}/s against {slow:,.0f}/s, {np.median(ratios):.1f} times "
                f"({ratios[0]:.1f} to {ratios[-1]:.1f}, n = {len(ratios)})",
                flush=True,
            )


# --- scale ---


def telling(report: Callable[[int], None]) -> Progress:
    """Progress that calls a function with the number of rows done."""

    @contextlib.contextmanager
    def progress(what: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:  # noqa: ARG001
        yield report

    return progress


def repeat(path: str, n_rows: int, out: Path) -> None:
    """Write so many rows of a collection, over and over, each pass in its own order, with new ids."""
    import pyarrow as pa
    from pyarrow import parquet

    texts = [row["text"] for row in splits.read_rows(path)]
    schema = pa.schema([("id", pa.string()), ("cif", pa.string())])
    rng = np.random.default_rng(0)
    order = np.concatenate([rng.permutation(len(texts)) for _ in range(-(-n_rows // len(texts)))])[:n_rows]
    with parquet.ParquetWriter(out, schema, compression="zstd") as writer:
        for start in range(0, n_rows, 10_000):
            chosen = order[start : start + 10_000].tolist()
            columns = [[f"r{start + i}" for i in range(len(chosen))], [texts[i] for i in chosen]]
            writer.write_table(pa.table(columns, schema=schema))


def scale(args: argparse.Namespace) -> None:
    """Print speed by tenths, and memory."""
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        path = Path(folder) / "repeated.parquet"
        done = os.fork()  # so that the texts in memory are not ours
        if not done:
            repeat(args.data[0], args.rows, path)
            os._exit(0)
        os.waitpid(done, 0)
        clock = time.process_time if args.workers == 1 else time.monotonic
        times = [(0, clock())]
        choices = PrepareOptions(
            language="none" if args.without_tokens else "orbits", split_by="random", deduplicate="none"
        )
        report = prepare.prepare(
            [str(path)],
            Path(folder) / "data",
            choices,
            workers=args.workers,
            progress=telling(lambda n: times.append((n, clock()))),
        )
        end = clock()
    ends = np.interp(np.linspace(0, args.rows, 11), [n for n, _ in times], [seconds for _, seconds in times])
    tenths = args.rows / 10 / np.diff(ends)
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    seconds = end - times[0][1]
    print(f"{args.rows:,} rows, {args.workers} processes: {report.written:,} written, {seconds:,.0f} s")
    print("rows/s by tenths:", *(f"{speed:,.0f}" for speed in tenths))
    print(f"last against first: {100 * (tenths[-1] / tenths[0] - 1):+.1f} %")
    print(
        f"assembly after the last row: {end - times[-1][1]:.1f} s; peak of one process {peak / 2**20:.2f} GB"
    )


# --- kills ---


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kills(args: argparse.Namespace) -> None:
    """Kill at random moments, finish, compare."""
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        command = [sys.executable, "-c", "from crystallm.cli.app import main; main()"]
        command += ["prepare", args.data[0], "--quiet"]
        command += ["--workers", str(args.workers), "--out"]
        start = time.monotonic()
        subprocess.run([*command, f"{folder}/whole"], check=True)
        whole = time.monotonic() - start
        rng = random.Random(0)
        moments = []
        while len(moments) < args.kills:
            run = subprocess.Popen([*command, f"{folder}/killed"], start_new_session=True)
            moment = rng.uniform(1.0, whole / 2)
            try:
                run.wait(moment)
            except subprocess.TimeoutExpired:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
                moments.append(moment)
            else:  # it was done before the kill: from the beginning
                shutil.rmtree(Path(folder) / "killed")
        subprocess.run([*command, f"{folder}/killed"], check=True)
        same = contents(Path(folder) / "whole") == contents(Path(folder) / "killed")
    when = ", ".join(f"{moment:.1f}" for moment in moments)
    print(f"undisturbed {whole:.1f} s; killed after {when} s; same bytes: {same}")


def cluster(args: argparse.Namespace) -> None:
    """Four Dask workers, one killed, against one process."""
    from distributed import LocalCluster

    from crystallm.execution import cluster as clusters

    killed: list[int] = []
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        prepare.prepare(args.data, Path(folder) / "one")
        with (
            LocalCluster(n_workers=4, threads_per_worker=1, dashboard_address=None) as local,
            clusters.connect(local.scheduler_address) as executor,
        ):

            def kill_one(_done: int) -> None:
                if not killed:
                    killed.append(next(iter(local.workers.values())).pid)
                    os.kill(killed[0], signal.SIGKILL)

            prepare.prepare(args.data, Path(folder) / "four", executor=executor, progress=telling(kill_one))
        same = contents(Path(folder) / "one") == contents(Path(folder) / "four")
    print(f"four workers, {len(killed)} killed; same bytes as one process: {same}")


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("ratio", "scale", "kills", "cluster"))
    parser.add_argument("data", nargs="+")
    parser.add_argument("--entries", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--without-tokens", action="store_true")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--dir", help="folder for temporary files")
    args = parser.parse_args()
    {"ratio": ratio, "scale": scale, "kills": kills, "cluster": cluster}[args.what](args)


if __name__ == "__main__":
    main()
