"""`crystallm benchmark challenge` and `classes`: what is known, asked of a model by name and by class."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from crystallm.cli.console import print_json, progress, without_nan
from crystallm.cli.option_groups import (
    BatchSize,
    ConfigFile,
    Constraints,
    Device,
    Dtype,
    Json,
    ModelName,
    Quiet,
    Seed,
    Temperature,
    TopK,
    TopP,
    merged,
    sampling,
    whole,
)
from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crystallm.benchmarks.known_compounds import ChallengeResult, Shares
    from crystallm.benchmarks.structure_classes import ClassesResult, Score
    from crystallm.crystals.crystal import Crystal
    from crystallm.generation.request import Request, SamplingOptions
    from crystallm.models.model import Model


ASKED = {"composition": False, "group": True}
"""Ways to ask, and whether each names the space group."""


def challenge(
    data: Annotated[
        str | None,
        Parameter(help="CSV(.gz), Parquet or folder of CIFs of known crystals (70 well-known ones of ours)."),
    ] = None,
    *,
    n: Annotated[int | None, Parameter(name=["-n", "--n"], help="Samples a compound (20).")] = None,
    ask: Annotated[
        str | None, Parameter(help="composition, group (with the space group too) or both (both).")
    ] = None,
    limit: Annotated[
        int | None, Parameter(help="So many compounds, evenly spread over the file (all).")
    ] = None,
    model: ModelName = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = None,
    constraints: Constraints = None,
    device: Device = None,
    dtype: Dtype = None,
    batch_size: BatchSize = None,
    workers: Annotated[int | None, Parameter(help="Processes that judge and compare (one a core).")] = None,
    out: Annotated[
        Path | None, Parameter(help="JSON file for the shares and what became of each compound.")
    ] = None,
    config: ConfigFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Well-known compounds: is there a valid crystal for each, and the known one, among n samples?

    crystallm benchmark challenge -n 20

    The prompt holds the composition of the known structure's conventional cell, and then once more with its
    space group. A match is one of pymatgen's StructureMatcher with its defaults; a loose one has the
    tolerances of the csp benchmark. Shares are over all compounds.
    """
    flags = {
        "data": data, "n": n, "ask": ask, "limit": limit, "model": model, "temperature": temperature,
        "top_k": top_k, "top_p": top_p, "seed": seed, "constraints": constraints, "device": device,
        "dtype": dtype,
        "batch_size": batch_size, "workers": workers, "out": out,
    }  # fmt: skip
    options = merged(config, flags)
    own = {name: options.pop(name, None) for name in ("data", "n", "ask", "limit", "workers", "out")}
    ways = _ways(own["ask"])
    n_samples = whole("n", own["n"], 20)
    settings, target = _settings(options, own["out"])
    from crystallm.benchmarks.known_compounds import judge, read_compounds
    from crystallm.benchmarks.reference_sets import requests_for, spread
    from crystallm.models.load import load_model
    from crystallm.storage import files

    compounds = read_compounds(own["data"])
    if own["limit"] is not None:
        compounds = spread(compounds, whole("limit", own["limit"], 1))
    loaded = load_model(settings.model, device=settings.device, dtype=settings.dtype)
    context = None if loaded.language.slides else loaded.config.context
    shown = not (quiet or json)
    results: dict[str, ChallengeResult] = {}
    for way in ways:
        requests = requests_for(
            [entry.structure for entry in compounds], n_samples, with_group=ASKED[way], context=context
        )
        written = _write(loaded, requests, settings, shown=shown)
        with progress("judging", None, shown=shown):
            results[way] = judge(
                compounds,
                {entry.id: crystals for entry, crystals in zip(compounds, written, strict=True)},
                workers=_workers(own["workers"]),
            )
    summary: dict[str, Any] = {
        "benchmark": "challenge",
        "data": "well_known" if own["data"] is None else Path(str(own["data"])).name,
        "n": n_samples,
        "asked": {way: _shares(result) for way, result in results.items()},
        "settings": settings.model_dump(),
    }
    if target is not None:
        rows = [_challenge_row(way, row) for way, result in results.items() for row in result.rows]
        files.write_json(target, summary | {"compounds": rows})
    if json:
        print_json([summary])
    elif not quiet:
        title = f"{summary['data']}, {len(compounds)} compounds, n = {n_samples}, model {loaded.name}"
        print_challenge(title, results)


def classes(
    data: Annotated[
        str | None,
        Parameter(help="CSV file with the columns formula,class,a[,c,split] in Å (249 compounds of ours)."),
    ] = None,
    *,
    classes: Annotated[
        str | None,
        Parameter(help="Some of rutile,spinel,elpasolite,pyrochlore,perovskite (all)."),
    ] = None,
    n: Annotated[int | None, Parameter(name=["-n", "--n"], help="Samples a formula (5).")] = None,
    limit: Annotated[int | None, Parameter(help="So many formulas a class, evenly spread (all).")] = None,
    unseen: Annotated[
        bool, Parameter(negative=(), help="Only formulas that the bundled models have not read.")
    ] = False,
    model: ModelName = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = None,
    constraints: Constraints = None,
    device: Device = None,
    dtype: Dtype = None,
    batch_size: BatchSize = None,
    out: Annotated[
        Path | None, Parameter(help="JSON file for the scores and the cell of each formula.")
    ] = None,
    config: ConfigFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Structure classes: does a composition lead to its class, and how good is the cell?

    crystallm benchmark classes --classes rutile,pyrochlore -n 5

    The prompt holds the composition of the class's conventional cell, nothing else. Found means: one of the n
    samples is of the class, each element in its place. Their mean cell parameters are compared with the known
    ones: R^2 and mean absolute error (MAE) over the found formulas.
    """
    flags = {
        "data": data, "classes": classes, "n": n, "limit": limit, "unseen": unseen or None, "model": model,
        "temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed, "constraints": constraints,
        "device": device, "dtype": dtype, "batch_size": batch_size, "out": out,
    }  # fmt: skip
    options = merged(config, flags)
    own = {name: options.pop(name, None) for name in ("data", "classes", "n", "limit", "unseen", "out")}
    n_samples = whole("n", own["n"], 5)
    settings, target = _settings(options, own["out"])
    from crystallm.analysis.prototypes import PROTOTYPES
    from crystallm.benchmarks.structure_classes import judge, read_references
    from crystallm.generation.request import Request
    from crystallm.models.load import load_model
    from crystallm.storage import files

    references = read_references(
        own["data"],
        classes=_names(own["classes"]),
        unseen=bool(own["unseen"]),
        limit=None if own["limit"] is None else whole("limit", own["limit"], 1),
    )
    loaded = load_model(settings.model, device=settings.device, dtype=settings.dtype)
    requests = [
        Request(formula=reference.formula, z=PROTOTYPES[reference.name].z, n=n_samples)
        for reference in references
    ]
    written = _write(loaded, requests, settings, shown=not (quiet or json))
    result = judge(
        references,
        {reference.formula: crystals for reference, crystals in zip(references, written, strict=True)},
    )
    scores = {"all": result.scores(), "unseen": result.scores(unseen=True)}
    summary: dict[str, Any] = {
        "benchmark": "classes",
        "data": "classes" if own["data"] is None else Path(str(own["data"])).name,
        "n": n_samples,
        "classes": {
            which: {name: _score(score) for name, score in found.items()} for which, found in scores.items()
        },
        "settings": settings.model_dump(),
    }
    if target is not None:
        files.write_json(target, summary | {"formulas": _class_rows(result)})
    if json:
        print_json([summary])
    elif not quiet:
        title = f"{summary['data']}, {len(references)} formulas, n = {n_samples}, model {loaded.name}"
        print_classes(title, scores)


# -- options -------------------------------------------------------------------------------------------------


def _settings(options: dict[str, Any], out: Any) -> tuple[SamplingOptions, Path | None]:
    """How to sample, and where the scores go; both checked before any work."""
    from crystallm.storage import files

    settings = sampling(options)
    target = None if out is None else Path(str(out))
    if target is not None:
        files.check_place(target.parent)
    return settings, target


def _workers(value: Any) -> int:
    return os.cpu_count() or 1 if value is None else whole("workers", value, 1)


def _ways(value: Any) -> list[str]:
    if value in (None, "both"):
        return list(ASKED)
    if value not in ASKED:
        raise InputError(f"ask = {value!r}: write {', '.join(ASKED)} or both")
    return [str(value)]


def _names(value: Any) -> list[str]:
    """Names of classes, of 'rutile,spinel' or a list."""
    parts = value if isinstance(value, list) else str(value or "").split(",")
    return [str(part).strip() for part in parts if str(part).strip()]


# -- writing -------------------------------------------------------------------------------------------------


def _write(
    model: Model, requests: Sequence[Request | None], settings: SamplingOptions, *, shown: bool
) -> list[list[Crystal]]:
    """The crystals of each request; none where there is none."""
    from crystallm.generation.generator import Generator

    asked = [request for request in requests if request is not None]
    generator = Generator(model, asked, settings)
    with progress("writing crystals", sum(request.n for request in asked), shown=shown) as advance:
        written = generator.generate(range(len(asked)), progress=advance)
        return [[] if request is None else next(written) for request in requests]


# -- what is told --------------------------------------------------------------------------------------------


def _shares(result: ChallengeResult) -> dict[str, Any]:
    """Shares of all, and of seen and unseen ones where the file tells them apart."""

    def told(shares: Shares) -> dict[str, Any]:
        return {
            "n": shares.n, "success": shares.success, "match": shares.match, "loose_match": shares.loose,
        }  # fmt: skip

    parts = {name: result.shares(seen=seen) for name, seen in (("seen", True), ("unseen", False))}
    return {"all": told(result.shares())} | {name: told(part) for name, part in parts.items() if part.n}


def _challenge_row(way: str, row: Any) -> dict[str, Any]:
    return {
        "asked": way,
        "id": row.compound.id,
        "name": row.compound.name,
        "formula": row.compound.formula,
        "space_group": row.compound.space_group,
        "seen": row.compound.seen,
        "n": row.n,
        "n_valid": row.n_valid,
        "first_match": row.first_match,
        "first_loose_match": row.first_loose,
        "rms": row.rms,
        "likeliest_group": row.likeliest,
    }


def _score(score: Score) -> dict[str, Any]:
    return {
        "n": score.n,
        "found": score.found,
        "r2": without_nan(score.r2),
        "mae": without_nan(score.mae),
    }


def _class_rows(result: ClassesResult) -> list[dict[str, Any]]:
    return [
        {
            "formula": row.reference.formula,
            "class": row.reference.name,
            "unseen": row.reference.unseen,
            "n": row.n,
            "n_found": row.n_found,
            "lengths": row.lengths,
            "known": row.reference.known,
        }
        for row in result.rows
    ]


def print_challenge(title: str, results: Mapping[str, ChallengeResult]) -> None:
    """Print what became of each compound, and the shares.

    Args:
        title: above the table.
        results: for each way of asking, of the same compounds.
    """
    from crystallm.cli.console import new_table, page, plain

    console = page()
    table = new_table(title)
    for name in ("compound", "name", "known group", "asked"):
        table.add_column(name)
    for name in ("valid", "first match", "loose", "RMS"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("likeliest group")
    for rows in zip(*(result.rows for result in results.values()), strict=True):
        for number, (way, row) in enumerate(zip(results, rows, strict=True)):
            told = (
                (row.compound.formula, plain(row.compound.name), row.compound.space_group)
                if number == 0
                else ("",) * 3
            )
            table.add_row(
                *told,
                way,
                f"{row.n_valid}/{row.n}",
                str(row.first_match or "-"),
                str(row.first_loose or "-"),
                "-" if row.rms is None else f"{row.rms:.4f}",
                row.likeliest or "-",
            )
    console.print(table)
    table = new_table()
    table.add_column("asked")
    table.add_column("compounds")
    for name in ("number", "valid %", "match %", "loose match %"):
        table.add_column(name, justify="right")
    for way, result in results.items():
        for which, shares in _shares(result).items():
            percent = (f"{100 * shares[name]:.1f}" for name in ("success", "match", "loose_match"))
            table.add_row(way, which, str(shares["n"]), *percent)
    console.print(table)


def print_classes(title: str, scores: Mapping[str, Mapping[str, Score]]) -> None:
    """Print the figures of each class, of all its formulas and of the unseen ones."""
    from crystallm.cli.console import new_table, page

    console = page()
    table = new_table(title)
    table.add_column("class")
    table.add_column("formulas")
    table.add_column("number", justify="right")
    table.add_column("found %", justify="right")
    table.add_column("cell")
    table.add_column("R²", justify="right")
    table.add_column("MAE (Å)", justify="right")
    for name in scores["all"]:
        for which, found in scores.items():
            if name not in found:
                continue
            score = found[name]
            for number, length in enumerate(score.mae):
                first = (name, which, str(score.n), f"{100 * score.found:.1f}")
                figures = (
                    "-" if math.isnan(x) else f"{x:.3f}" for x in (score.r2[length], score.mae[length])
                )
                table.add_row(*(first if number == 0 else ("",) * 4), length, *figures)
    console.print(table)
