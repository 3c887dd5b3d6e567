"""`crystallm generate` and `crystallm models`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from cyclopts import Parameter

import crystallm
from crystallm.commands import (
    BatchSize,
    Cluster,
    ConfigFile,
    Device,
    Json,
    ModelName,
    Quiet,
    Seed,
    Temperature,
    TopK,
    TopP,
    executor,
    merged,
    print_json,
    progress,
    sampling,
)
from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystallm.answers import Selection
    from crystallm.asking import Request
    from crystallm.generation import Settings
    from crystallm.runs import RunFolder

TABLE_ROWS = 40
"""Crystals in the printed table, at most; results.parquet has them all."""


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
    cluster: Cluster = None,
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
        "cluster": cluster,
    }  # fmt: skip
    options = merged(config, flags)
    asked = _asked({name: value for name, value in options.items() if name != "cluster"})
    place = {"cluster": options.get("cluster")}
    rows, note = _generate(asked, place, show_progress=not (quiet or json))
    from crystallm import units

    kept = [row for found in units.by_request(rows) for row in units.kept(found, asked.selection)]
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


def _generate(
    asked: Asked, place: Mapping[str, Any], *, show_progress: bool
) -> tuple[list[dict[str, Any]], str]:
    """Write, judge, rank and keep the crystals of all requests; what can be refused is refused first.

    Returns:
        A row for each crystal, and how the request was read ("" if there are several).
    """
    from crystallm import runs

    requests, settings, selection, out = asked
    if out is not None:
        runs.check_place(out)
    from crystallm import units
    from crystallm.checkpoint import load_model
    from crystallm.crystal import COLUMNS
    from crystallm.generation import Generator, fingerprint

    # The workers of a cluster write; here, where no GPU may be, the requests are understood.
    model = load_model(settings.model, device=settings.device if place["cluster"] is None else "cpu")
    generator = Generator(model, requests, settings, selection)
    folder: RunFolder | None = None
    todo = list(range(len(requests)))
    if out is not None:
        # What decides the crystals: neither the device nor the size of batches, nor where they are written.
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
    with (
        executor(place if todo else {}) as where,
        progress(what, total, shown=show_progress) as advance,
    ):
        if where is None:
            written = units.write(generator, todo, selection, progress=advance)
        else:
            written = units.write_on(where, generator, todo, selection, progress=advance)
        if folder is not None:
            folder.open()
        rows = []
        for unit, found, cifs in written:
            if folder is None:
                rows += found
            else:
                folder.write_unit(unit, found, cifs)
    note = generator.note(0) if len(requests) == 1 else ""
    if folder is None:
        return rows, note
    folder.finish()
    return folder.rows(), note


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
