"""`crystallm generate` and `crystallm models`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

import crystallm
from crystallm.commands import ConfigFile, Json, Quiet, merged, print_json, progress
from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from crystallm.crystal import Crystal
    from crystallm.generation import Request, Settings
    from crystallm.runs import RunFolder

TABLE_ROWS = 40
"""Crystals in the printed table, at most; results.parquet has them all."""
JUDGED_TOGETHER = 256
"""Crystals that are judged, and whose requests are written, together: a judging process starts in seconds."""
JUDGED_BY_ONE = 32
"""Crystals for which a further judging process is started."""


def generate(
    formula: Annotated[
        str | None, Parameter(help="What the cell holds, as people write it: TiO2, '(NH4)2SO4'.")
    ] = None,
    *,
    z: Annotated[
        int | None, Parameter(help="Formula units in the cell. Without it: the cell as written.")
    ] = None,
    space_group: Annotated[
        str | None, Parameter(help="Number or symbol: 136, P4_2/mnm, 'P 42/m n m'.")
    ] = None,
    n: Annotated[int | None, Parameter(name=["-n", "--n"], help="Crystals for each request (10).")] = None,
    out: Annotated[
        Path | None, Parameter(help="Folder for CIFs and results.parquet; without it, none is written.")
    ] = None,
    formulas: Annotated[
        Path | None,
        Parameter(help="CSV file of requests, columns formula[,z][,space_group][,n]; needs --out."),
    ] = None,
    prompt: Annotated[
        str | None,
        Parameter(
            help=r"Any beginning of a text in the model's language, in place of a formula; \n is a newline."
        ),
    ] = None,
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
    constraints: Annotated[
        Literal["full", "syntax", "none"] | None,
        Parameter(help="How far the writer is held to crystallography (full)."),
    ] = None,
    device: Annotated[str | None, Parameter(help="auto, cpu, cuda, cuda:1, mps (auto).")] = None,
    batch_size: Annotated[int | None, Parameter(help="Crystals written at a time (32).")] = None,
    max_new_tokens: Annotated[int | None, Parameter(help="Tokens of one crystal, at most (3000).")] = None,
    config: ConfigFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write crystals for a formula, for many, or for none.

    crystallm generate TiO2 --z 2 --space-group P4_2/mnm -n 20 --out out/

    Without a formula the network chooses the composition too. With --out, one CIF a crystal and
    results.parquet are written; a killed run started again does only what is missing.
    """
    flags = {
        "formula": formula, "z": z, "space_group": space_group, "n": n, "out": out, "formulas": formulas,
        "prompt": prompt, "model": model, "temperature": temperature, "top_k": top_k, "top_p": top_p,
        "seed": seed, "constraints": constraints, "device": device, "batch_size": batch_size,
        "max_new_tokens": max_new_tokens,
    }  # fmt: skip
    requests, settings, folder = _asked(merged(config, flags))
    rows = _generate(requests, settings, folder, show_progress=not (quiet or json))
    if json:
        print_json(rows)
    elif not quiet:
        from crystallm import tables

        tables.print_crystals(rows, [_note(request) for request in requests], TABLE_ROWS)
        tables.print_summary(rows, folder)


def _asked(options: dict[str, Any]) -> tuple[list[Request], Settings, Path | None]:
    """What the options ask for.

    Raises:
        InputError: options that are out of range or cannot stand together.
    """
    from crystallm.generation import Request, Settings, read_requests, validated

    options = dict(options)
    out, formulas = options.pop("out", None), options.pop("formulas", None)
    if options.get("top_k") == 0:
        options["top_k"] = None
    if isinstance(options.get("prompt"), str):
        options["prompt"] = options["prompt"].replace("\\n", "\n")
    one = {name: options.pop(name) for name in tuple(options) if name in Request.model_fields}
    settings = validated(Settings, options)
    request = validated(Request, one)
    folder = None if out is None else Path(str(out))
    if formulas is None:
        return [request], settings, folder
    if set(one) - {"n"}:
        raise InputError(f"--formulas and {', '.join(sorted(set(one) - {'n'}))}: give one or the other")
    if folder is None:
        raise InputError("--formulas needs --out: name a folder for the results")
    return read_requests(Path(str(formulas)), n=request.n), settings, folder


def _note(request: Request) -> str:
    from crystallm.generation import understand

    return understand(request).note


def _generate(
    requests: list[Request], settings: Settings, out: Path | None, *, show_progress: bool
) -> list[dict[str, Any]]:
    """Write, judge and keep the crystals of all requests; what can be refused is refused first."""
    from crystallm.generation import understand
    from crystallm.runs import RunFolder, check_place

    for request in requests:
        understand(request)
    if out is not None:
        check_place(out)
    from crystallm.checkpoint import load_model
    from crystallm.crystal import COLUMNS
    from crystallm.generation import Generator, fingerprint

    model = load_model(settings.model, device=settings.device)
    generator = Generator(model, requests, settings)
    folder: RunFolder | None = None
    todo = list(range(len(requests)))
    if out is not None:
        # What decides the crystals: neither the device nor the size of batches.
        question = settings.model_dump(exclude={"device", "batch_size"}) | {
            "command": "generate",
            "version": crystallm.__version__,
            "weights": fingerprint(model),
            "requests": [
                request.model_dump(exclude_defaults=True) | {"n": request.n} for request in requests
            ],
        }
        folder = RunFolder(out, question, len(requests), COLUMNS)
        todo = sorted(folder.check())
    total = sum(requests[unit].n for unit in todo)
    with progress("writing crystals", total, shown=show_progress) as advance:
        written = generator.write(todo, progress=advance)
        if folder is not None:
            folder.open()
        rows = []
        for units in _judged(zip(todo, written, strict=True)):
            for unit, crystals in units:
                found, cifs = _unit_rows(unit, crystals, requests)
                if folder is None:
                    rows += found
                else:
                    folder.write_unit(unit, found, cifs)
    if folder is None:
        return rows
    folder.finish()
    return folder.rows()


def _judged(units: Iterable[tuple[int, list[Crystal]]]) -> Iterator[list[tuple[int, list[Crystal]]]]:
    """The units in groups whose crystals have been judged together, in a process that may be lost."""
    from crystallm import validity

    def judge(group: list[tuple[int, list[Crystal]]]) -> list[tuple[int, list[Crystal]]]:
        crystals = [crystal for _, found in group for crystal in found]
        # One process a core, but none for a handful: each takes seconds to start.
        workers = max(1, min(os.cpu_count() or 1, len(crystals) // JUDGED_BY_ONE))
        verdicts = validity.check_many([crystal.judged for crystal in crystals], workers=workers)
        for crystal, verdict in zip(crystals, verdicts, strict=True):
            crystal.judge(verdict)
        return group

    group: list[tuple[int, list[Crystal]]] = []
    for unit in units:
        group.append(unit)
        if sum(len(crystals) for _, crystals in group) >= JUDGED_TOGETHER:
            yield judge(group)
            group = []
    if group:
        yield judge(group)


def _unit_rows(
    unit: int, crystals: Sequence[Crystal], requests: Sequence[Request]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows of one request, and its CIFs by file name."""
    from crystallm.crystal import COLUMNS

    request = requests[unit]
    rows, cifs = [], {}
    for sample, crystal in enumerate(crystals):
        row = crystal.row() | {
            "request": unit,
            "sample": sample,
            "asked_formula": request.formula,
            "asked_z": request.z,
            "asked_space_group": request.space_group,
            "prompt": request.prompt,
        }
        if row.get("cif"):
            place = f"{unit:05d}-" if len(requests) > 1 else ""
            row["file"] = f"{place}{row['formula']}-sg{row['space_group_number']}-{sample:04d}.cif"
            cifs[row["file"]] = row["cif"]
        rows.append({name: row.get(name) for name in COLUMNS})
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
