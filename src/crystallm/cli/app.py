"""The command line. Owns the exit codes, 0, 1 (ran and failed) or 2 (asked wrongly), and the form of errors.

Everything heavy is imported inside the command that needs it, so that `--help` is quick. Results go to
standard output, progress and errors (one line, no traceback) to standard error.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import os
import re
import sys
from typing import TYPE_CHECKING, NoReturn

from cyclopts import App, ArgumentCollection, CycloptsError, Group, UnusedCliTokensError

from crystallm.cli.commands.benchmark.csp import csp
from crystallm.cli.commands.benchmark.generated import novelty, unconditional
from crystallm.cli.commands.benchmark.known import classes, compounds
from crystallm.cli.commands.complete import complete
from crystallm.cli.commands.energies import energy_server, hull, relax
from crystallm.cli.commands.evaluate import evaluate, score
from crystallm.cli.commands.export import export
from crystallm.cli.commands.generate import generate
from crystallm.cli.commands.models import convert, embeddings, models
from crystallm.cli.commands.prepare import prepare, prompts
from crystallm.cli.commands.search import search
from crystallm.cli.commands.serve import cluster, serve
from crystallm.cli.commands.train import train
from crystallm.cli.option_groups import read_config_file, set_flags, validation_message
from crystallm.errors import CrystallmError, InputError, install
from crystallm.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def _whole(arguments: ArgumentCollection) -> None:
    """Refuse fractions for whole numbers: cyclopts would round them without a word."""
    for argument in arguments:
        for token in argument.tokens:
            if isinstance(argument.value, int) and "." in token.value and float(token.value) % 1:
                raise InputError(f"{argument.name} {token.value}: write a whole number")


KEPT = ("generate", "search", "complete", "relax", "evaluate", "hull", "prepare", "benchmark")
"""Commands that go on where they were when they are given again."""

UNKEPT = ("compounds", "classes", "novelty", "unconditional")
"""Benchmarks that begin anew."""

_ORDER = itertools.count()

options = Group("Parameters", validator=_whole)

app = App(
    name="crystallm",
    help="Plausible crystal structures from a chemical formula, written by a language model of crystals.",
    version=__version__,
    help_format="plaintext",
    group_parameters=options,
    config=(read_config_file,),
    suppress_keyboard_interrupt=False,
)


def _flowed(command: Callable[..., None]) -> str:
    """What a command's help says, each paragraph on one line: lines end where those of the terminal do."""
    said = re.sub(
        r"pip install 'crystallm\[(\w+)\]'", lambda found: install(found[1]), inspect.getdoc(command) or ""
    )
    paragraphs = said.split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _add(group: App, *commands: Callable[..., None]) -> None:
    """Add commands, which the help lists in this order."""
    for command in commands:
        set_flags(command)
        group.command(command, help=_flowed(command), sort_key=next(_ORDER))


_add(app, generate, search, complete, relax, evaluate, hull, score, export)

benchmark = App(
    name="benchmark",
    help="Measure a model against known crystals.",
    help_format="plaintext",
    group_parameters=options,
    sort_key=next(_ORDER),
)

benchmark.default(csp)  # `crystallm benchmark mp_20`

_add(benchmark, csp, compounds, classes, novelty, unconditional)

app.command(benchmark)

_add(app, prepare, train, prompts, models, convert, embeddings, serve, energy_server, cluster)


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
    words = sys.argv[1:] if arguments is None else list(arguments)
    if logging.lastResort is not None:  # prints warnings on standard error
        logging.lastResort.setFormatter(logging.Formatter("crystallm: %(message)s"))
    try:
        app(
            words,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
        sys.stdout.flush()
    except CycloptsError as error:
        return _complain(_said(error), 2)
    except CrystallmError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _complain("; ".join(("interrupted", *_going_on(words))), 130)
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


def _going_on(words: Sequence[str]) -> list[str]:
    """What there is to say of going on with a command that was interrupted."""
    kept = any(word.split("=")[0] == "--out" for word in words)
    command, measure = [*words[:2], "", ""][:2]
    if command == "train" and kept:
        return ["crystallm train --resume with the same --dataset and --out goes on from the last validation"]
    if command in KEPT and measure not in UNKEPT:
        return ["the same command goes on from here" if kept else "with --out, the same command would go on"]
    return []


def _said(error: CycloptsError) -> str:
    """What a command line that cannot be read is told."""
    if isinstance(error.__cause__, InputError):
        return str(error.__cause__)
    if (message := validation_message(error)) is not None:
        return message
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        more = (
            "; many formulas are named in a file, --requests"
            if "generate" in (error.command_chain or ())
            else ""
        )
        return f"{' '.join(error.unused_tokens)!r} is more than the command takes{more} (see --help)"
    return f"{str(error).rstrip('.')} (see --help)"


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"crystallm: {' '.join(message.split())}\n")
    return code
