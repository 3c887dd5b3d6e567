"""The commands. Owns what is printed and the exit codes: 0, 1 (ran and failed), 2 (asked wrongly).

Everything heavy is imported inside the command that needs it, so that `--help` is quick. Results go to
standard output, progress and errors (one line, no traceback) to standard error.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

from cyclopts import App, CycloptsError, Parameter

import crystallm
from crystallm.errors import CrystallmError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from crystallm.crystal import Crystal
    from crystallm.generation import Request, Settings
    from crystallm.runs import RunFolder

TABLE_ROWS = 40
"""Crystals in the printed table, at most; results.parquet has them all."""
JUDGED_TOGETHER = 256
"""Crystals that are judged, and whose requests are written, together: a judging process starts in seconds."""

app = App(
    name="crystallm",
    help="Plausible crystal structures from a chemical formula, written by a language model of crystals.",
    version=crystallm.__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)

ConfigFile = Annotated[
    Path | None,
    Parameter(
        name="--config", help="YAML file with options of this command; what stands on the command line wins."
    ),
]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the name of the program; those of this process if None.

    Returns:
        The exit code.
    """
    try:
        app(
            sys.argv[1:] if arguments is None else list(arguments),
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
        sys.stdout.flush()
    except CycloptsError as error:
        return _complain(f"{str(error).rstrip('.')} (see --help)", 2)
    except CrystallmError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _complain("interrupted; with --out, the same command goes on from here", 130)
    except BrokenPipeError:
        # Whoever read our output has left. Python would complain once more while it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("CRYSTALLM_TRACEBACK"):
            raise
        return _complain(
            f"internal error, {type(error).__name__}: {error} (CRYSTALLM_TRACEBACK=1 shows where)", 1
        )
    return 0


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"crystallm: {' '.join(message.split())}\n")
    return code


@app.command
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
    json: Annotated[bool, Parameter(negative=(), help="Print one JSON object a crystal, no table.")] = False,
    quiet: Annotated[bool, Parameter(negative=(), help="Print nothing but errors.")] = False,
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
    options = read_config(config, flags) | {name: value for name, value in flags.items() if value is not None}
    requests, settings, folder = _asked(options)
    rows = _generate(requests, settings, folder, show_progress=not (quiet or json))
    if json:
        _print_json(rows)
    elif not quiet:
        from crystallm import tables

        tables.print_crystals(rows, [_note(request) for request in requests], TABLE_ROWS)
        tables.print_summary(rows, folder)


def read_config(path: Path | None, known: Iterable[str]) -> dict[str, Any]:
    """Options of a YAML file.

    Args:
        path: of the file; None for no options.
        known: the names that there are.

    Raises:
        InputError: no mapping, or an unknown name.
        CrystallmError: the file cannot be read.
    """
    if path is None:
        return {}
    import difflib

    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CrystallmError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold names and values, such as 'temperature: 0.8'")
    options = {str(name).replace("-", "_"): value for name, value in content.items()}
    names = sorted(known)
    for name in options:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f": did you mean {near[0]}?" if near else f": there are {', '.join(names)}"
            raise InputError(f"{path}: unknown option {name!r}{hint}")
    return options


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
    with _progress(total, shown=show_progress) as advance:
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
        for crystal, verdict in zip(crystals, validity.check_many([c.judged for c in crystals]), strict=True):
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


@contextlib.contextmanager
def _progress(total: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, if that is a terminal."""
    if not (shown and sys.stderr.isatty()):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("writing crystals"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


@app.command
def models(
    *, json: Annotated[bool, Parameter(negative=(), help="Print one JSON object a model, no table.")] = False
) -> None:
    """List the models that the package brings along."""
    from crystallm import tables
    from crystallm.checkpoint import list_models

    found = [_described(name) for name in list_models()]
    if json:
        _print_json(found)
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


def _print_json(rows: Iterable[dict[str, Any]]) -> None:
    import json

    for row in rows:
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
