"""`crystallm prepare` and `crystallm prompts`: collections become training data, and what to ask."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from crystallm.cli.console import print_json, progress
from crystallm.cli.option_groups import Cluster, ConfigFile, Json, Quiet, executor, merged, whole
from crystallm.errors import InputError

if TYPE_CHECKING:
    from crystallm.datasets.report import PreparationReport


SHOWN = 5
"""Crystals without a prompt that are named."""


def prepare(
    *inputs: Annotated[
        str,
        Parameter(
            help="Collections of structures, each perhaps with =train, =val or =test: folders and archives "
            "of CIFs or POSCARs, CSV, Parquet, JSON, JSON Lines, extended XYZ, ASE databases, .pkl.gz."
        ),
    ],
    out: Annotated[Path | None, Parameter(help="Folder for the data set.")] = None,
    language: Annotated[
        Literal["orbits", "cif", "none"] | None,
        Parameter(help="Of the tokens; none: no tokens, CIFs in rows.parquet (orbits)."),
    ] = None,
    symprec: Annotated[float | None, Parameter(help="Tolerance of the symmetry search, Å (0.1).")] = None,
    standardise: Annotated[
        bool | None,
        Parameter(negative=(), help="With language none: write the conventional standardised cell."),
    ] = None,
    deduplicate: Annotated[
        Literal["auto", "formula-group", "text", "none"] | None,
        Parameter(
            help="formula-group: the least volume per formula unit of one cell formula and space group; "
            "text: the first of equal texts; none; auto: none where splits are given, else formula-group "
            "(auto)."
        ),
    ] = None,
    max_atoms: Annotated[int | None, Parameter(help="Atoms of the cell as given, at most (any).")] = None,
    min_volume: Annotated[float | None, Parameter(help="Å^3 per atom, at least (any).")] = None,
    max_volume: Annotated[float | None, Parameter(help="Å^3 per atom, at most (any).")] = None,
    min_distance: Annotated[float | None, Parameter(help="Å between two atoms, at least (0.5).")] = None,
    max_tokens: Annotated[int | None, Parameter(help="Longer crystals are refused (1024).")] = None,
    split: Annotated[
        str | None,
        Parameter(
            help="given (by inputs and their column 'split'), random, formula (no formula in two splits), a "
            "CSV file (id,split) or a JSON file {split: [ids]}; auto: given if an input says one, else "
            "random (auto)."
        ),
    ] = None,
    val: Annotated[float | None, Parameter(help="Share or number of crystals to val (0.1).")] = None,
    test: Annotated[float | None, Parameter(help="Share or number of crystals to test (0.0045).")] = None,
    equivalents: Annotated[
        int | None,
        Parameter(
            help="Other descriptions of each training crystal, for crystallm train --equivalents; with "
            "language orbits (0)."
        ),
    ] = None,
    seed: Annotated[
        int | None, Parameter(help="Of random splits and of equivalent descriptions (0).")
    ] = None,
    exclude: Annotated[
        list[str] | None,
        Parameter(
            negative=(), consume_multiple=True, help="Collections, such as test sets, that must not be in it."
        ),
    ] = None,
    exclude_by: Annotated[
        list[Literal["id", "formula-group", "structure"]] | None,
        Parameter(
            negative=(),
            consume_multiple=True,
            help="What makes a row one of theirs: id, reduced formula and space group, StructureMatcher "
            "(id formula-group).",
        ),
    ] = None,
    workers: Annotated[int | None, Parameter(help="Processes (one a core).")] = None,
    cluster: Cluster = None,
    config: ConfigFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn collections of structures into tokens for training, and say what became of every row.

    crystallm prepare perov_5/train.csv.gz=train perov_5/val.csv.gz=val --out data/

    crystallm prepare cifs/ more.extxyz --exclude mp_20/test.csv.gz --out mine/

    Rows that are put aside stand in rejected.parquet with step and reason; report.html counts and draws. A
    run that was killed goes on when it is started again.
    """
    from crystallm.datasets.options import PrepareOptions
    from crystallm.options import validated

    own = {"inputs": list(inputs) or None, "out": out, "workers": workers, "cluster": cluster}
    steps = {
        "language": language, "symprec": symprec, "standardise": standardise, "deduplicate": deduplicate,
        "max_atoms": max_atoms, "min_volume": min_volume, "max_volume": max_volume, "split": split,
        "min_distance": min_distance, "max_tokens": max_tokens, "val": val, "test": test, "seed": seed,
        "exclude": exclude, "exclude_by": exclude_by, "equivalents": equivalents,
    }  # fmt: skip
    options = merged(config, own | steps)
    names = _several(options.get("inputs"))
    if not names:
        raise InputError("no input: name collections of structures, such as cifs/ or train.csv.gz")
    if options.get("out") is None:
        raise InputError("--out is missing: name a folder for the data set")
    n_workers = whole("workers", options.get("workers"), os.cpu_count() or 1)
    asked = {name: options[name] for name in steps if name in options}
    for name in ("exclude", "exclude_by"):
        if name in asked:
            asked[name] = tuple(_several(asked[name]))
    choices = validated(PrepareOptions, asked)
    from crystallm.datasets.prepare import prepare as run

    shown = not (quiet or json)
    with executor(options) as where, progress("reading crystals", None, shown=shown) as advance:
        report = run(names, str(options["out"]), choices, workers=n_workers, executor=where, progress=advance)
    if json:
        print_json([_record(report)])
    elif not quiet:
        from crystallm.cli import crystal_tables

        crystal_tables.print_report(report, Path(str(options["out"])))


def prompts(
    source: Annotated[
        str | None, Parameter(help="Data set folder, or a collection as for crystallm prepare.")
    ] = None,
    *,
    out: Annotated[
        Path | None,
        Parameter(
            help="File: .csv (id,formula,space_group, for crystallm generate --formulas), or .tar.gz or .zip "
            "of ID.txt in the published language."
        ),
    ] = None,
    with_group: Annotated[bool | None, Parameter(negative=(), help="Name the space group, too.")] = None,
    split: Annotated[
        str | None, Parameter(help="Of a data set folder: train, val or test (test); of others: all rows.")
    ] = None,
    symprec: Annotated[float | None, Parameter(help="Tolerance of the symmetry search, Å (0.1).")] = None,
    workers: Annotated[int | None, Parameter(help="Processes (one a core).")] = None,
    config: ConfigFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write down what to ask a model so that it should find these crystals: cell composition, space group.

    crystallm prompts data/ --split test --with-group --out test.csv

    crystallm generate --formulas test.csv --out out/test
    """
    flags = {
        "source": source, "out": out, "with_group": with_group, "split": split, "symprec": symprec,
        "workers": workers,
    }  # fmt: skip
    options = merged(config, flags)
    for name in ("source", "out"):
        if options.get(name) is None:
            raise InputError(f"no {name}: see crystallm prompts --help")
    from crystallm.datasets import prompts as datasets_prompts

    with progress("reading crystals", None, shown=not (quiet or json)) as advance:
        found = datasets_prompts.prompts(
            str(options["source"]),
            with_group=bool(options.get("with_group", False)),
            split=options.get("split"),
            symprec=float(options.get("symprec", 0.1)),
            workers=whole("workers", options.get("workers"), os.cpu_count() or 1),
            progress=advance,
        )
        n, skipped = datasets_prompts.write(found, Path(str(options["out"])))
    if json:
        print_json([{"prompts": n, "skipped": {prompt.id: prompt.problem for prompt in skipped}}])
    elif not quiet:
        from crystallm.cli import console as cli_console

        console = cli_console.page()
        console.print(f"{n:,} prompts in {options['out']}", highlight=False)
        for prompt in skipped[:SHOWN]:
            console.print(cli_console.plain(f"  {prompt.id}: {prompt.problem}"), highlight=False)
        if len(skipped) > SHOWN:
            console.print(f"  and {len(skipped) - SHOWN:,} more without a prompt", highlight=False)


def _several(value: Any) -> list[str]:
    """A list of names; a file may give one alone."""
    return [] if value is None else [value] if isinstance(value, str) else [str(part) for part in value]


def _record(report: PreparationReport) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(report) | {"written": report.written}
