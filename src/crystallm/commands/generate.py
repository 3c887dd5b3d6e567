"""`crystallm generate` and `crystallm models`."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from cyclopts import Parameter

import crystallm
from crystallm.commands import (
    BatchSize,
    ConfigFile,
    Device,
    Json,
    ModelName,
    Quiet,
    Seed,
    Temperature,
    TopK,
    TopP,
    merged,
    print_json,
    progress,
    sampling,
)
from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from crystallm.answers import Selection
    from crystallm.asking import Request
    from crystallm.crystal import Crystal
    from crystallm.generation import Settings
    from crystallm.runs import RunFolder

TABLE_ROWS = 40
"""Crystals in the printed table, at most; results.parquet has them all."""
JUDGED_TOGETHER = 256
"""Crystals that are judged, ranked and kept together: a judging process starts in seconds."""


class Asked(NamedTuple):
    """What the options ask for."""

    requests: list[Request]
    settings: Settings
    selection: Selection
    out: Path | None


def generate(
    formula: Annotated[
        str | None, Parameter(help="What the cell holds, as people write it: TiO2, '(NH4)2SO4'.")
    ] = None,
    *,
    z: Annotated[
        int | Literal["auto"] | None,
        Parameter(help="Formula units in the cell; auto: likely ones. Without it: the cell as written."),
    ] = None,
    space_group: Annotated[
        str | None,
        Parameter(help="Number or symbol: 136, P4_2/mnm, 'P 42/m n m'; auto: spread over likely ones."),
    ] = None,
    n: Annotated[int | None, Parameter(name=["-n", "--n"], help="Crystals for each request (10).")] = None,
    out: Annotated[
        Path | None, Parameter(help="Folder for CIFs and results.parquet; without it, none is written.")
    ] = None,
    formulas: Annotated[
        Path | None,
        Parameter(help="CSV file of requests, columns formula[,z][,space_group][,n]; needs --out."),
    ] = None,
    valid: Annotated[
        bool | None, Parameter(negative=(), help="Write on until n crystals are valid, and keep those.")
    ] = None,
    max_tries: Annotated[
        int | None, Parameter(help="With --valid: crystals written for a request, at most (10 n).")
    ] = None,
    rank: Annotated[
        Literal["agreement", "likelihood", "both"] | None,
        Parameter(help="Fold equal crystals, count them, and put the best first."),
    ] = None,
    best: Annotated[
        int | None, Parameter(help="Keep so many distinct crystals of a request; ranks by agreement.")
    ] = None,
    prompt: Annotated[
        str | None,
        Parameter(
            help=r"Any beginning of a text in the model's language, in place of a formula; \n is a newline."
        ),
    ] = None,
    model: ModelName = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = None,
    constraints: Annotated[
        Literal["full", "syntax", "none"] | None,
        Parameter(help="How far the writer is held to crystallography (full)."),
    ] = None,
    device: Device = None,
    batch_size: BatchSize = None,
    max_new_tokens: Annotated[int | None, Parameter(help="Tokens of one crystal, at most (3000).")] = None,
    config: ConfigFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write crystals for a formula, for many, or for none.

    crystallm generate TiO2 --z 2 --space-group P4_2/mnm -n 20 --out out/

    Without a formula the network chooses the composition too. With --out, one CIF a crystal and
    results.parquet are written; a killed run started again does only what is missing. results.parquet has
    all that was written, also what --valid and --best do not keep.
    """
    flags = {
        "formula": formula, "z": z, "space_group": space_group, "n": n, "out": out, "formulas": formulas,
        "prompt": prompt, "model": model, "temperature": temperature, "top_k": top_k, "top_p": top_p,
        "seed": seed, "constraints": constraints, "device": device, "batch_size": batch_size,
        "max_new_tokens": max_new_tokens, "valid": valid, "max_tries": max_tries, "rank": rank, "best": best,
    }  # fmt: skip
    asked = _asked(merged(config, flags))
    rows, note = _generate(asked, show_progress=not (quiet or json))
    kept = [row for found in _by_request(rows) for row in _kept(found, asked.selection)]
    if json:
        print_json(kept)
    elif not quiet:
        from crystallm import tables

        tables.print_crystals(kept, note, len(asked.requests), TABLE_ROWS)
        tables.print_summary(rows, kept, asked.out)


def _asked(options: dict[str, Any]) -> Asked:
    """What the options ask for.

    Raises:
        InputError: options that are out of range or cannot stand together.
    """
    from crystallm.answers import Selection
    from crystallm.asking import Request, read_requests, understand, validated

    options = dict(options)
    out, formulas = options.pop("out", None), options.pop("formulas", None)
    if isinstance(options.get("prompt"), str):
        options["prompt"] = options["prompt"].replace("\\n", "\n")
    one = {name: options.pop(name) for name in tuple(options) if name in Request.model_fields}
    kept = {name: options.pop(name) for name in tuple(options) if name in Selection.model_fields}
    settings = sampling(options)
    selection = validated(Selection, kept)
    request = validated(Request, one)
    fitting = settings.constraints == "full"
    folder = None if out is None else Path(str(out))
    if formulas is None:
        understand(request, fitting=fitting)
        return Asked([request], settings, selection, folder)
    if set(one) - {"n"}:
        raise InputError(f"--formulas and {', '.join(sorted(set(one) - {'n'}))}: give one or the other")
    if folder is None:
        raise InputError("--formulas needs --out: name a folder for the results")
    requests = read_requests(Path(str(formulas)), n=request.n, fitting=fitting)
    return Asked(requests, settings, selection, folder)


def _generate(asked: Asked, *, show_progress: bool) -> tuple[list[dict[str, Any]], str]:
    """Write, judge, rank and keep the crystals of all requests; what can be refused is refused first.

    Returns:
        A row for each crystal, and how the request was read ("" if there are several).
    """
    from crystallm import answers, runs

    requests, settings, selection, out = asked
    if out is not None:
        runs.check_place(out)
    from crystallm.checkpoint import load_model
    from crystallm.crystal import COLUMNS
    from crystallm.generation import Generator, fingerprint

    model = load_model(settings.model, device=settings.device)
    generator = Generator(model, requests, settings, selection)
    folder: RunFolder | None = None
    todo = list(range(len(requests)))
    if out is not None:
        # What decides the crystals: neither the device nor the size of batches.
        question = settings.model_dump(exclude={"device", "batch_size"}) | {
            **selection.model_dump(exclude_defaults=True),
            "command": "generate",
            "version": crystallm.__version__,
            "weights": fingerprint(model),
            "requests": [
                request.model_dump(exclude_defaults=True) | {"n": request.n} for request in requests
            ],
        }
        folder = runs.RunFolder(out, question, len(requests), COLUMNS)
        todo = sorted(folder.check())
    total = sum(requests[unit].n for unit in todo)
    what = "writing valid crystals" if selection.valid else "writing crystals"
    with progress(what, total, shown=show_progress) as advance:
        write = generator.write_valid if selection.valid else generator.write
        written = write(todo, progress=advance)
        if folder is not None:
            folder.open()
        rows = []
        for units in _together(zip(todo, written, strict=True)):
            if not selection.valid:  # else they have been judged
                answers.judge([crystal for _, found in units for crystal in found])
            if selection.ranking is not None:
                answers.rank([found for _, found in units], selection.ranking)
            for unit, crystals in units:
                found, cifs = _unit_rows(unit, crystals, requests, selection)
                if folder is None:
                    rows += found
                else:
                    folder.write_unit(unit, found, cifs)
    note = generator.note(0) if len(requests) == 1 else ""
    if folder is None:
        return rows, note
    folder.finish()
    return folder.rows(), note


def _together(units: Iterable[tuple[int, list[Crystal]]]) -> Iterator[list[tuple[int, list[Crystal]]]]:
    """The units in groups that are judged and ranked together."""
    group: list[tuple[int, list[Crystal]]] = []
    for unit in units:
        group.append(unit)
        if sum(len(crystals) for _, crystals in group) >= JUDGED_TOGETHER:
            yield group
            group = []
    if group:
        yield group


def _by_request(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows of each request, as they stand one behind the other."""
    return [list(found) for _, found in itertools.groupby(rows, key=lambda row: row["request"])]


def _kept(rows: Sequence[dict[str, Any]], selection: Selection) -> list[dict[str, Any]]:
    """The rows of a request that are its answers, in their order."""
    from crystallm import answers

    ranks, clusters = [row["rank"] for row in rows], [row["cluster"] for row in rows]
    return [rows[i] for i in answers.kept(ranks, clusters, [bool(row["valid"]) for row in rows], selection)]


def _unit_rows(
    unit: int, crystals: Sequence[Crystal], requests: Sequence[Request], selection: Selection
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows of one request, and the CIFs of its answers by file name."""
    from crystallm.crystal import COLUMNS

    request = requests[unit]
    rows = []
    for sample, crystal in enumerate(crystals):
        row = crystal.row() | {
            "request": unit,
            "sample": sample,
            "asked_formula": request.formula,
            "asked_z": None if request.z == "auto" else request.z,
            "asked_space_group": request.space_group,
            "prompt": request.prompt,
        }
        rows.append({name: row.get(name) for name in COLUMNS})
    cifs = {}
    for row in _kept(rows, selection):
        if row["cif"]:
            place = f"{unit:05d}-" if len(requests) > 1 else ""
            row["file"] = f"{place}{row['formula']}-sg{row['space_group_number']}-{row['sample']:04d}.cif"
            cifs[row["file"]] = row["cif"]
    return rows, cifs


def models(*, json: Json = False) -> None:
    """List the models that the package brings along."""
    from crystallm import tables
    from crystallm.checkpoint import list_models

    found = [_described(name) for name in list_models()]
    if json:
        print_json(found)
    else:
        tables.print_models(found)


def _described(name: str) -> dict[str, Any]:
    """What there is to say of a bundled model."""
    from crystallm.checkpoint import load_model

    model = load_model(name, device="cpu")
    return {
        "name": name,
        "language": model.language.name,
        "parameters": model.network.num_parameters(),
        "context": model.config.context,
        "card": model.card,
    }
