"""`crystallm train`: a recipe, a data set and flags become a run, which reports on standard error."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystallm.cli.console import print_json
from crystallm.cli.option_groups import Flat, OutputOptions, Positional
from crystallm.errors import CrystallmError, InputError
from crystallm.execution.place import DeviceOptions
from crystallm.options import hint, read_mapping
from crystallm.training.recipe import (
    BUDGET,
    FINE_TUNING,
    OLD_NAMES,
    Recipe,
    RecipeOptions,
    TrainFiles,
    bundled,
    renamed,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystallm.training.loss import Losses
    from crystallm.training.state import TrainingProgress

_PAUSE = 0.2  # seconds between two states of the running line

# Seconds in which the first process reports an error, before torchrun ends it because another has ended.
_GRACE = 2.0


def train(
    recipe: Positional = None,
    /,
    *,
    files: Flat[TrainFiles] = TrainFiles.defaults(),
    fields: Flat[RecipeOptions] = RecipeOptions.defaults(),
    device: Flat[DeviceOptions] = DeviceOptions.defaults(),
    output: Flat[OutputOptions] = OutputOptions.defaults(),
) -> None:
    """Train a network.

    crystallm train recipe.yaml --dataset data --out runs/mine --max-minutes 60

    crystallm train --init-from default --dataset data --out runs/mine --max-minutes 60

    torchrun --nproc-per-node 2 -m crystallm train paper-small-mp_20 --dataset data --out runs/mine

    RECIPE is a bundled recipe or a YAML file; a flag wins over --config, which wins over RECIPE. Give one of
    --max-tokens, --max-updates and --max-minutes. With --init-from, the network is that of the model, and
    learning rate, warmup and patience have defaults for fine-tuning.
    """
    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun has started
    try:
        end = _run(recipe, files, fields, device.device, output, shown=first and output.progress)
    except CrystallmError as error:
        if first:
            raise
        time.sleep(_GRACE)
        raise SystemExit(error.exit_code) from None
    if output.as_json and first:
        from dataclasses import asdict

        print_json([asdict(end)])


def _run(
    recipe: str | None,
    files: TrainFiles,
    fields: RecipeOptions,
    device: str,
    output: OutputOptions,
    *,
    shown: bool,
) -> TrainingProgress:
    flags = _flags(fields, output.config)
    if files.dataset is None:
        raise InputError("--dataset is missing: name a folder that `crystallm prepare` made")
    if files.out is None:
        raise InputError("--out is missing: name a folder for the run")
    if files.resume:
        given = [*([] if recipe is None else [recipe]), *sorted(flags)]
        if given:
            raise InputError(f"--resume keeps the recipe of the run: leave {', '.join(given)} out")
        chosen = Recipe(max_updates=1)
    else:
        chosen = Recipe.build(_with_fine_tuning(_merged(_read(recipe), flags), shown=shown))
    from crystallm.training.loop import train as run  # imports torch; errors above come at once

    report = TrainingReporter(device, chosen.dtype) if shown else None
    end = run(chosen, str(files.dataset), str(files.out), resume=files.resume, device=device, report=report)
    if shown:
        if end.share < 1:
            sys.stderr.write(f"stopped: {end.stale} validations in a row were not below {end.best:.3f}\n")
        model = files.out / "model"
        sys.stderr.write(f"the best weights: {model}; crystallm generate NaCl --z 4 --model {model}\n")
    return end


def _flags(fields: RecipeOptions, config: Path | None) -> dict[str, Any]:
    """Return the fields that are given; a length on the command line replaces another one of --config."""
    given = fields.model_dump(exclude_unset=True)
    if config is not None and sum(name in given for name in BUDGET) > 1:
        names = {name.replace("-", "_") for name in read_mapping(config, "max_minutes: 60") or {}}
        given = {name: value for name, value in given.items() if name not in names or name not in BUDGET}
    return given


def _read(recipe: str | None) -> dict[str, Any]:
    """Return the fields of a recipe by name, or of a file."""
    if recipe is None:
        return {}
    path = bundled().get(recipe, Path(recipe))
    if path.is_dir():
        raise InputError(f"{recipe!r} is a folder, not a recipe: name a data set with --dataset {recipe}")
    if path.suffix not in (".yaml", ".yml") and not path.is_file():
        raise InputError(f"no recipe {recipe[:60]!r}: give a YAML file, or one of {', '.join(bundled())}")
    content = read_mapping(path, "max_minutes: 60") or {}
    values = {name.replace("-", "_"): value for name, value in content.items()}
    for name in values:
        if name not in Recipe.model_fields and name not in OLD_NAMES:
            raise InputError(f"{path}: unknown option {name!r}: {hint(name, sorted(Recipe.model_fields))}")
    return renamed(values)


def _merged(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields with others that win; a length of the schedule replaces one in another unit."""
    hidden = BUDGET if any(upper.get(name) is not None for name in BUDGET) else ()
    return {name: value for name, value in lower.items() if name not in hidden} | dict(upper)


def _with_fine_tuning(fields: Mapping[str, Any], *, shown: bool) -> dict[str, Any]:
    """Return fields with the architecture of `init_from` and the defaults of fine-tuning, if it is given."""
    model = fields.get("init_from")
    if model is None:
        return dict(fields)
    from crystallm.training.loop import architecture_of

    defaults = architecture_of(str(model)) | FINE_TUNING
    added = {name: value for name, value in defaults.items() if name not in fields}
    if shown and added:
        text = ", ".join(f"{name} {value}" for name, value in added.items())
        sys.stderr.write(f"from the weights of {model}: {text}\n")
    return {**fields, **added}


class TrainingReporter:
    """Reports on standard error: a line for each validation, and a running one on a terminal.

    Args:
        device: of the training, by name.
    """

    def __init__(self, device: str, dtype: str) -> None:
        self._device, self._dtype = device, dtype
        self._running = sys.stderr.isatty()
        self._peak = 0.0  # operations a second of all devices, measured at the first update
        self._last: TrainingProgress | None = None  # at the last full line
        self._shown_at = -_PAUSE  # seconds of training at the last line of any kind

    def __call__(self, progress: TrainingProgress, losses: Losses | None) -> None:
        """Report an update, or a validation with its losses."""
        if self._last is None:
            from crystallm.execution.devices import resolve_device
            from crystallm.training import distributed, flops

            self._peak = distributed.size() * flops.peak(resolve_device(self._device), self._dtype)[0]
            self._last = progress
        if losses is None and (not self._running or progress.seconds - self._shown_at < _PAUSE):
            return
        self._shown_at = progress.seconds
        line = self._line(progress, self._last)
        if losses is None:
            sys.stderr.write(f"\r{line}\x1b[K")
        else:
            best = " (best)" if progress.stale == 0 else ""
            start, end = ("\r", "\x1b[K") if self._running else ("", "")
            sys.stderr.write(f"{start}{line}  validation {losses.crystal:.3f} nats a crystal{best}{end}\n")
            self._last = progress
        sys.stderr.flush()

    def _line(self, progress: TrainingProgress, last: TrainingProgress) -> str:
        line = (
            f"{100 * progress.share:5.1f} %  update {progress.update}  {progress.tokens / 1e6:.2f} M tokens  "
            f"loss {progress.loss:.3f} nats a token"
        )
        seconds = progress.seconds - last.seconds
        if seconds > 0:
            speed = (progress.tokens - last.tokens) / seconds
            use = (progress.operations - last.operations) / seconds / self._peak
            line += f"  {speed:,.0f} tokens/s  {100 * use:.0f} % of peak"
        left = progress.seconds * (1 - progress.share) / max(progress.share, 1e-9)
        return f"{line}  {_time(left)} left"


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
