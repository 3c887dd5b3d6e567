"""`crystallm train`."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from crystallm.commands import ConfigFile, Json, Quiet, merged, print_json
from crystallm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from crystallm.training import Losses, Progress


def train(
    data: Annotated[Path | None, Parameter(help="Folder that `crystallm prepare` made.")] = None,
    *,
    out: Annotated[Path | None, Parameter(help="Folder for the run: weights, state, metrics.jsonl.")] = None,
    minutes: Annotated[float | None, Parameter(help="Length of the schedule, minutes of training.")] = None,
    updates: Annotated[
        int | None, Parameter(help="Length of the schedule, updates; this or minutes.")
    ] = None,
    seed: Annotated[int | None, Parameter(help="Of weights, order and dropout (0).")] = None,
    init_from: Annotated[
        str | None, Parameter(help="Bundled name, folder or ckpt.pt whose weights to start from.")
    ] = None,
    resume: Annotated[bool, Parameter(negative=(), help="Go on with the run in --out.")] = False,
    device: Annotated[str | None, Parameter(help="auto, cpu, cuda (auto).")] = None,
    config: ConfigFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a network.

    crystallm train data/ --out runs/mine --config recipe.yaml --minutes 60

    The file holds the recipe: n_layer, n_head, n_embd, context, dropout, batch_tokens, learning_rate, ...
    """
    from crystallm.asking import validated
    from crystallm.training import Recipe
    from crystallm.training import train as run

    own = {"data": data, "out": out, "device": device}
    named = {"minutes": minutes, "updates": updates, "seed": seed, "init_from": init_from}
    flags = own | dict.fromkeys(Recipe.model_fields) | named
    options = merged(config, flags)
    place = {name: options.pop(name, None) for name in own}
    if place["data"] is None:
        raise InputError("no data: name a folder that `crystallm prepare` made")
    if place["out"] is None:
        raise InputError("--out is missing: name a folder for the run")
    if resume and options:
        raise InputError(f"--resume keeps the recipe of the run: leave {', '.join(sorted(options))} out")
    if minutes is not None and updates is None:
        options.pop("updates", None)  # the command line wins over the file
    if updates is not None and minutes is None:
        options.pop("minutes", None)
    end = run(
        Recipe(updates=1) if resume else validated(Recipe, options),
        str(place["data"]),
        str(place["out"]),
        resume=resume,
        device=place["device"] or "auto",
        report=None if quiet or json else _reporter(),
    )
    if json:
        from dataclasses import asdict

        print_json([asdict(end)])


def _reporter() -> Callable[[Progress, Losses | None], None]:
    """Says on standard error how the training goes: a line each validation, and a running one if it can."""
    shown = sys.stderr.isatty()

    def report(progress: Progress, losses: Losses | None) -> None:
        line = (
            f"{100 * progress.share:5.1f} %  update {progress.update}  {progress.tokens / 1e6:.2f} M tokens  "
            f"{progress.seconds / 60:.1f} min  loss {progress.loss:.3f} nats a token"
        )
        if losses is not None:
            start = "\r" if shown else ""
            sys.stderr.write(f"{start}{line}  validation {losses.crystal:.3f} nats a crystal\n")
        elif shown and progress.update % 10 == 0:
            sys.stderr.write(f"\r{line}")
            sys.stderr.flush()

    return report
