"""`crystallm benchmark`: a model writes, the benchmarks score."""

from __future__ import annotations

import json as json_lines
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from crystallm.commands import ConfigFile, Json, Quiet, merged, print_json, progress
from crystallm.errors import CrystallmError, InputError, TextError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pymatgen.core import Structure

    from crystallm.asking import Request


def csp(
    data: Annotated[
        str | None, Parameter(help="CSV(.gz) or Parquet file of known structures, with a column 'cif'.")
    ] = None,
    *,
    n: Annotated[
        str | None, Parameter(name=["-n", "--n"], help="Samples an entry, one or several (1,20).")
    ] = None,
    entries: Annotated[
        int | None, Parameter(help="So many of them, evenly spread over the file (all).")
    ] = None,
    split: Annotated[
        str | None, Parameter(help="Only rows of this split, where the file has a column for it.")
    ] = None,
    composition_test: Annotated[
        bool, Parameter(help="Count only what passes the SMACT test, as the paper.")
    ] = True,
    model: Annotated[
        str | None, Parameter(help="Bundled name, folder, or published ckpt.pt (default).")
    ] = None,
    temperature: Annotated[float | None, Parameter(help="Logits are divided by it (1.0).")] = None,
    top_k: Annotated[
        int | None, Parameter(help="Sample from the k likeliest tokens (10); 0 for all.")
    ] = None,
    top_p: Annotated[
        float | None, Parameter(help="Sample from the likeliest tokens with this probability.")
    ] = None,
    seed: Annotated[int | None, Parameter(help="The same seed gives the same crystals (0).")] = None,
    constraints: Annotated[str | None, Parameter(help="full, syntax or none (full).")] = None,
    device: Annotated[str | None, Parameter(help="auto, cpu, cuda, cuda:1, mps (auto).")] = None,
    batch_size: Annotated[int | None, Parameter(help="Crystals written at a time (32).")] = None,
    workers: Annotated[int | None, Parameter(help="Processes that compare (one a core).")] = None,
    out: Annotated[
        Path | None, Parameter(help="JSON file for the scores and each sample's distance.")
    ] = None,
    config: ConfigFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Crystal structure prediction: how often the known structure is among n samples for its composition.

    crystallm benchmark csp perov_5/val.csv.gz -n 1,20 --entries 500

    The prompt holds the composition of the known structure's conventional cell, nothing else. A match is one
    of pymatgen's StructureMatcher (stol 0.5, angle_tol 10, ltol 0.3); the rate is over all entries.
    """
    flags = {
        "data": data, "n": n, "entries": entries, "split": split, "model": model, "temperature": temperature,
        "top_k": top_k, "top_p": top_p, "seed": seed, "constraints": constraints, "device": device,
        "batch_size": batch_size, "workers": workers, "out": out,
    }  # fmt: skip
    options = merged(config, flags)
    own = {name: options.pop(name, None) for name in ("data", "n", "entries", "split", "workers", "out")}
    if own["data"] is None:
        raise InputError("no data: name a file of known structures with a column 'cif'")
    numbers = _numbers(own["n"])
    from crystallm import runs
    from crystallm.asking import validated
    from crystallm.benchmarks.csp import evaluate
    from crystallm.checkpoint import load_model
    from crystallm.generation import Generator, Settings

    if options.get("top_k") == 0:
        options["top_k"] = None
    settings = validated(Settings, options)
    target = None if own["out"] is None else Path(str(own["out"]))
    if target is not None:
        runs.check_place(target.parent)
    truths = known_structures(str(own["data"]), split=own["split"], entries=own["entries"])
    candidates: list[list[Structure | str | None]] = [[] for _ in truths]
    loaded = load_model(settings.model, device=settings.device)
    context = loaded.config.context if loaded.language.name == "orbits" else None
    requests = requests_for(truths, max(numbers), context=context)
    asked = [i for i, request in enumerate(requests) if request is not None]
    generator = Generator(loaded, [request for request in requests if request is not None], settings)
    shown = not (quiet or json)
    with progress("writing crystals", len(asked) * max(numbers), shown=shown) as advance:
        written = generator.write(range(len(asked)), progress=advance)
        for i, crystals in zip(asked, written, strict=True):
            for crystal in crystals:
                try:
                    # The paper's text is judged as it was printed; see Crystal.judged.
                    structure = crystal.structure
                    candidates[i].append(crystal.written if loaded.language.name == "cif" else structure)
                except TextError:
                    candidates[i].append(None)
    done = 0

    def compared(_: int) -> None:
        nonlocal done
        done += 1
        advance(done)

    with progress("comparing", None, shown=shown) as advance:
        result = evaluate(
            truths,
            candidates,
            numbers,
            workers=own["workers"] or os.cpu_count() or 1,
            composition_test=composition_test,
            on_done=compared,
        )
    scores: dict[str, Any] = {
        "benchmark": "csp",
        "data": Path(str(own["data"])).name,
        "n_entries": result.n_entries,
        "match_rate": result.match_rate,
        "rmse": {k: None if math.isnan(value) else value for k, value in result.rmse.items()},
        "composition_test": composition_test,
        "settings": settings.model_dump(),
    }
    if target is not None:
        full = scores | {"rms": result.rms, "reasons": result.reasons}
        runs.write_atomically(target, (json_lines.dumps(full, indent=1) + "\n").encode())
    if json:
        print_json([scores])
    elif not quiet:
        from crystallm import tables

        title = f"{scores['data']}, {result.n_entries} entries, model {loaded.name}"
        tables.print_scores(title, result.match_rate, result.rmse)


def known_structures(spec: str, *, split: str | None = None, entries: int | None = None) -> list[Structure]:
    """Structures of a file, `PATH` or `PATH=SPLIT`.

    Args:
        spec: as for `crystallm prepare`.
        split: only rows of this split.
        entries: so many, evenly spread over the file; all if None.

    Raises:
        InputError: a file that cannot be read, or has no such rows.
        CrystallmError: a row that is no structure.
    """
    import warnings

    from pymatgen.core import Structure

    from crystallm.prepare import read_rows

    if entries is not None and entries < 1:
        raise InputError(f"entries = {entries}: write a whole number from 1")
    rows = [row for row in read_rows(spec) if split is None or row.split == split]
    if not rows:
        raise InputError(f"{spec!r} has no row{'' if split is None else f' of the split {split!r}'}")
    if entries is not None and entries < len(rows):
        rows = [rows[i * len(rows) // entries] for i in range(entries)]
    structures = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pymatgen, on nearly every file
        for row in rows:
            try:
                structures.append(Structure.from_str(row.cif, fmt="cif"))
            except Exception as error:  # noqa: BLE001 - pymatgen raises many types; the message carries it
                raise CrystallmError(f"{spec!r}: {row.id} is no structure: {str(error)[:80]}") from None
    return structures


def requests_for(
    truths: Sequence[Structure], n: int, *, with_group: bool = False, context: int | None = None
) -> list[Request | None]:
    """The request for each known structure: its standard text's composition, and its group if wanted.

    None where there is no such text, or none that a model with this context could write in `orbits`: the
    entry then counts as not found.
    """
    return list(_requests(truths, n, with_group=with_group, context=context))


def _requests(
    truths: Sequence[Structure], n: int, *, with_group: bool, context: int | None
) -> Iterator[Request | None]:
    from crystallm import cif, grammar
    from crystallm.asking import Request, understand

    for truth in truths:
        try:
            known = cif.parse(cif.to_text(truth))
            request = Request(
                formula="".join(f"{symbol}{count}" for symbol, count in known.composition),
                space_group=known.space_group if with_group else None,
                n=n,
            )
            group = understand(request).space_group
            grammar.rules(
                "orbits", known.composition, None if group is None else group.number, context=context
            )
        except CrystallmError:
            yield None
        else:
            yield request


def _numbers(value: Any) -> tuple[int, ...]:
    """Numbers of samples, of '1,20', 20 or [1, 20]."""
    parts = str(value if value is not None else "1,20").strip("[]() ").split(",")
    try:
        numbers = tuple(int(part) for part in parts)
    except ValueError:
        numbers = (0,)
    if min(numbers) < 1:
        raise InputError(f"n = {value!r}: write whole numbers from 1, such as 1,20")
    return numbers
