"""`crystallm train`: a recipe, a data set and flags become a run; how it goes is said on standard error."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from crystallm.cli.console import print_json
from crystallm.cli.option_groups import ConfigFile, Json, Quiet, read_config
from crystallm.errors import CrystallmError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from crystallm.training.loss import Losses
    from crystallm.training.state import TrainingProgress

    Report = Callable[[TrainingProgress, Losses | None], None]


Count = int | Literal["none"] | None

Number = float | Literal["none"] | None


@Parameter(name="*")
@dataclass(frozen=True)
class Fields:
    """The flags of a recipe, one a field of `recipe.Recipe`; None: not given."""

    language: Annotated[str | None, Parameter(help="Refuse data in another language (any).")] = None
    form: Annotated[
        Literal["gpt2", "llama"] | None,
        Parameter(help="Positions, norms and MLP as in GPT-2 or Llama (gpt2)."),
    ] = None
    n_layer: Annotated[int | None, Parameter(help="Transformer blocks (8).")] = None
    n_head: Annotated[int | None, Parameter(help="Attention heads of a block (8).")] = None
    n_embd: Annotated[int | None, Parameter(help="Width of the network (512).")] = None
    bias: Annotated[bool | None, Parameter(help="Biases in linear layers and norms (no).")] = None
    context: Annotated[int | None, Parameter(help="Largest number of tokens (1024).")] = None
    dropout: Annotated[float | None, Parameter(help="Share of activations dropped (0.1).")] = None
    packing: Annotated[
        Literal["packed", "starts", "random"] | None,
        Parameter(help="Whole crystals; pieces of the stream from crystals' starts; from anywhere (packed)."),
    ] = None
    rare_group_exponent: Annotated[
        float | None, Parameter(help="Draw a crystal of a group that n of N have (N / n)^rare times (0).")
    ] = None
    replay_dataset: Annotated[str | None, Parameter(help="Older data set to draw from too.")] = None
    replay_share: Annotated[float | None, Parameter(help="Share of crystals drawn from it (0.1).")] = None
    augmentation_share: Annotated[
        float | None,
        Parameter(help="Share of the schedule with crystals in any of their equivalent descriptions (0)."),
    ] = None
    batch_tokens: Annotated[int | None, Parameter(help="Tokens of a micro-batch (8192).")] = None
    gradient_accumulation: Annotated[
        int | None, Parameter(help="Micro-batches of an update on each process (1).")
    ] = None
    learning_rate: Annotated[
        float | None, Parameter(help="Highest rate (0.001; 0.0003 with --init-from).")
    ] = None
    final_learning_rate_fraction: Annotated[
        float | None, Parameter(help="Last rate over the highest (0.1; 0.01 with --init-from).")
    ] = None
    warmup: Annotated[int | None, Parameter(help="Updates over which the rate rises (100).")] = None
    optimizer: Annotated[
        Literal["adamw", "muon"] | None, Parameter(help="AdamW, or Muon for the matrices of blocks (adamw).")
    ] = None
    weight_decay: Annotated[float | None, Parameter(help="Of matrices (0.1).")] = None
    beta1: Annotated[float | None, Parameter(help="AdamW's first decay rate (0.9).")] = None
    beta2: Annotated[float | None, Parameter(help="AdamW's second decay rate (0.99).")] = None
    gradient_clip: Annotated[float | None, Parameter(help="Largest norm of a gradient (1).")] = None
    low_weight: Annotated[
        float | None, Parameter(help="Weight of losses of what is given and of last digits (1).")
    ] = None
    max_tokens: Annotated[int | None, Parameter(help="Length of the schedule, tokens.")] = None
    max_updates: Annotated[int | None, Parameter(help="Length of the schedule, updates.")] = None
    max_minutes: Annotated[float | None, Parameter(help="Length of the schedule, minutes.")] = None
    validate_every: Annotated[
        float | None, Parameter(help="Share of the schedule between validations (0.05).")
    ] = None
    patience: Annotated[
        Count,
        Parameter(help="Stop after so many validations without improvement (none; 5 with --init-from)."),
    ] = None
    max_loss_jump: Annotated[
        Number, Parameter(help="Stop at a loss so far above the last ones, nats a token (2).")
    ] = None
    seed: Annotated[int | None, Parameter(help="Of weights, order and dropout (0).")] = None
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"] | None, Parameter(help="Arithmetic (auto).")
    ] = None
    compile: Annotated[bool | None, Parameter(help="Build kernels with torch.compile (no).")] = None
    init_from: Annotated[
        str | None, Parameter(help="Bundled name, folder or ckpt.pt whose weights to start from.")
    ] = None


_NONE_GIVEN = Fields()

_PAUSE = 0.2  # seconds between two states of the running line

# Seconds in which the first process says what went wrong, before torchrun ends it because another has ended.
_GRACE = 2.0


def train(
    recipe: Annotated[
        str | None, Parameter(help="Name of a recipe that the package brings along, or a YAML file.")
    ] = None,
    /,
    *,
    dataset: Annotated[Path | None, Parameter(help="Folder that `crystallm prepare` made.")] = None,
    out: Annotated[Path | None, Parameter(help="Folder for the run: weights, state, metrics.jsonl.")] = None,
    resume: Annotated[bool, Parameter(negative=(), help="Go on with the run in --out.")] = False,
    device: Annotated[str | None, Parameter(help="auto, cpu, cuda (auto).")] = None,
    fields: Fields = _NONE_GIVEN,
    config: ConfigFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a network.

    crystallm train recipe.yaml --dataset data --out runs/mine --max-minutes 60

    crystallm train --init-from default --dataset data --out runs/mine --max-minutes 60

    torchrun --nproc-per-node 2 -m crystallm train paper-small-mp_20 --dataset data --out runs/mine

    A flag wins over --config, that over RECIPE. Give one of --max-tokens, --max-updates and --max-minutes.
    """
    own = {"dataset": dataset, "out": out, "device": device}
    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun has started
    try:
        end = _run(recipe, own, fields, config, resume=resume, talks=first and not (quiet or json))
    except CrystallmError as error:
        if first:
            raise
        time.sleep(_GRACE)
        raise SystemExit(error.exit_code) from None
    if json and first:
        from dataclasses import asdict

        print_json([asdict(end)])


def _run(
    recipe: str | None,
    own: Mapping[str, Any],
    fields: Fields,
    config: Path | None,
    *,
    resume: bool,
    talks: bool,
) -> TrainingProgress:
    from crystallm.options import validated
    from crystallm.training.recipe import Recipe

    asked = read_config(config, [*own, *Recipe.model_fields])
    place = {name: asked.pop(name, None) if value is None else value for name, value in own.items()}
    flags = {
        name: None if value == "none" else value for name, value in vars(fields).items() if value is not None
    }
    if place["dataset"] is None:
        raise InputError("--dataset is missing: name a folder that `crystallm prepare` made")
    if place["out"] is None:
        raise InputError("--out is missing: name a folder for the run")
    if resume:
        given = [*([recipe] if recipe is not None else []), *sorted({**asked, **flags})]
        if given:
            raise InputError(f"--resume keeps the recipe of the run: leave {', '.join(given)} out")
        chosen = Recipe(max_updates=1)
    else:
        options = _over(_over(_read(recipe), asked), flags)
        options = _further(options, talks=talks)
        chosen = validated(Recipe, options)
    from crystallm.training.loop import train as run  # which takes seconds, and what was asked wrongly none

    device = str(place["device"] or "auto")
    end = run(
        chosen,
        str(place["dataset"]),
        str(place["out"]),
        resume=resume,
        device=device,
        report=_reporter(device, chosen.dtype) if talks else None,
    )
    if talks and end.share < 1:
        sys.stderr.write(f"stopped: {end.stale} validations in a row were no better than {end.best:.3f}\n")
    if talks:
        model = Path(str(place["out"])) / "model"
        sys.stderr.write(f"the best weights: {model}; crystallm generate NaCl --z 4 --model {model}\n")
    return end


def _read(recipe: str | None) -> dict[str, Any]:
    """Fields of a recipe that is named, or of a file.

    Raises:
        InputError: no recipe of that name, or a file with an unknown field.
        CrystallmError: the file cannot be read.
    """
    from crystallm.training.recipe import OLD_NAMES, Recipe, bundled, renamed

    if recipe is None:
        return {}
    if recipe in bundled():
        return read_config(bundled()[recipe], Recipe.model_fields)
    path = Path(recipe)
    if path.is_dir():
        raise InputError(f"{recipe!r} is a folder, no recipe: a data set is named with --dataset {recipe}")
    if path.suffix not in (".yaml", ".yml") and not path.is_file():
        raise InputError(f"no recipe {recipe[:60]!r}: give a YAML file, or one of {', '.join(bundled())}")
    return renamed(read_config(path, [*Recipe.model_fields, *OLD_NAMES]))


def _over(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Options under others that win; a length of the schedule wins over one in another unit."""
    from crystallm.training.recipe import BUDGET

    hidden = BUDGET if any(upper.get(name) is not None for name in BUDGET) else ()
    return {name: value for name, value in lower.items() if name not in hidden} | dict(upper)


def _further(options: Mapping[str, Any], *, talks: bool) -> dict[str, Any]:
    """Options with what goes with weights to start from, where they do not say it themselves."""
    model = options.get("init_from")
    if model is None:
        return dict(options)
    from crystallm.training.loop import architecture_of
    from crystallm.training.recipe import FINE_TUNING

    added = {
        name: value
        for name, value in (architecture_of(str(model)) | FINE_TUNING).items()
        if name not in options
    }
    if talks and added:
        said = ", ".join(f"{name} {value}" for name, value in added.items())
        sys.stderr.write(f"from the weights of {model}: {said}\n")
    return {**options, **added}


def _reporter(device: str, dtype: str) -> Report:
    """Says on standard error how the training goes: a line each validation, and a running one if it can."""
    from crystallm.execution import devices
    from crystallm.training import distributed, flops

    shown = sys.stderr.isatty()
    peaks: list[float] = []  # operations a second of all devices; measured at the first update
    last: list[TrainingProgress] = []  # at the last full line
    told = [-_PAUSE]  # seconds of training at the last line of any kind

    def report(progress: TrainingProgress, losses: Losses | None) -> None:
        if not last:
            peaks.append(distributed.size() * flops.peak(devices.resolve_device(device), dtype)[0])
            last.append(progress)
        if losses is None and (not shown or progress.seconds - told[0] < _PAUSE):
            return
        told[0] = progress.seconds
        line = (
            f"{100 * progress.share:5.1f} %  update {progress.update}  {progress.tokens / 1e6:.2f} M tokens  "
            f"loss {progress.loss:.3f} nats a token"
        )
        seconds = progress.seconds - last[0].seconds
        if seconds > 0:
            speed = (progress.tokens - last[0].tokens) / seconds
            use = (progress.operations - last[0].operations) / seconds / peaks[0]
            line += f"  {speed:,.0f} tokens/s  {100 * use:.0f} % of peak"
        left = progress.seconds * (1 - progress.share) / max(progress.share, 1e-9)
        line += f"  {_time(left)} left"
        if losses is None:
            sys.stderr.write(f"\r{line}\x1b[K")
        else:
            best = " (best)" if progress.stale == 0 else ""
            start, end = ("\r", "\x1b[K") if shown else ("", "")
            sys.stderr.write(f"{start}{line}  validation {losses.crystal:.3f} nats a crystal{best}{end}\n")
            last[0] = progress
        sys.stderr.flush()

    return report


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
