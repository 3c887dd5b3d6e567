"""The command line: its exit codes, 0, 1 (failed) or 2 (invalid input), and the form of errors.

Commands are imported when they are used, so that `--help` is quick. Results go to standard output, progress
and errors (one line, no traceback) to standard error.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from cyclopts import (
    App,
    ArgumentCollection,
    CycloptsError,
    Group,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from crystallm.cli.command_loader import COMMANDS, add_commands
from crystallm.errors import CrystallmError, InputError, one_line
from crystallm.execution import interrupt
from crystallm.version import __version__

ELSEWHERE = {
    "--condition": "train, generate and benchmark condition",
    "--guidance": "generate and benchmark condition",
}
"""Options that a command is often expected to have, and the commands that have them."""


def _whole(arguments: ArgumentCollection) -> None:
    """Reject fractions for whole numbers: cyclopts would round them silently."""
    for argument in arguments:
        for token in argument.tokens:
            if isinstance(argument.value, int) and "." in token.value and float(token.value) % 1:
                raise InputError(f"{argument.name} {token.value}: write a whole number")


RESUMABLE = (
    "generate",
    "search",
    "complete",
    "relax",
    "evaluate",
    "hull",
    "prepare",
    "benchmark",
    "references",
)
"""Commands that resume with --out when they are run again."""
NOT_RESUMABLE = ("compounds", "classes", "novelty", "unconditional")
"""Benchmarks that do not resume."""


def make_app(words: Sequence[str] | None = None) -> App:
    """Return the command line.

    Args:
        words: the command to run; the help of other commands has the first line only. None: all have their
            whole help.
    """
    app = App(
        name="crystallm",
        help="Plausible crystal structures from a chemical formula, by a language model of crystals.",
        version=__version__,
        help_format="plaintext",
        group_parameters=Group("Parameters", validator=_whole),
        config=(_read_config_file,),
        suppress_keyboard_interrupt=False,
    )
    add_commands(app, COMMANDS, words)
    return app


def _read_config_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    if any(argument.keys == ("config",) for argument in arguments):
        from crystallm.cli.option_groups import read_config_file

        read_config_file(app, commands, arguments)


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
    interrupt.watch()
    try:
        with _warnings_on_standard_error():
            make_app(words)(
                words,
                exit_on_error=False,
                print_error=False,
                result_action="return_value",
            )
        sys.stdout.flush()
        interrupt.check()
    except CycloptsError as error:
        return _complain(_usage_error(error), 2)
    except CrystallmError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _complain("; ".join(("interrupted", *_how_to_resume(words))), 130)
    except BrokenPipeError:
        # The reader of our output has left. Python would report it once more while it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("CRYSTALLM_TRACEBACK"):
            raise
        if isinstance(error, OSError) and error.filename is not None and error.strerror:
            return _complain(f"{one_line(error.filename)!r}: {error.strerror}", 1)
        return _complain(
            f"internal error, {type(error).__name__}: {error} (CRYSTALLM_TRACEBACK=1 shows where)", 1
        )
    return 0


@contextmanager
def _warnings_on_standard_error() -> Iterator[None]:
    """Print logged warnings as `crystallm: ...`, whatever handlers a library adds."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("crystallm: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def _how_to_resume(words: Sequence[str]) -> list[str]:
    """Return how to resume an interrupted command, or nothing."""
    is_stored = any(word.split("=")[0] == "--out" for word in words)
    command, measure = [*words[:2], "", ""][:2]
    if command == "train" and is_stored:
        return ["crystallm train --resume with the same --dataset and --out resumes from the last validation"]
    if command in RESUMABLE and measure not in NOT_RESUMABLE:
        return ["the same command resumes" if is_stored else "with --out, the same command would resume"]
    return []


def _usage_error(error: CycloptsError) -> str:
    """Return the message for an invalid command line."""
    if isinstance(error.__cause__, InputError):
        return str(error.__cause__)
    if error.__cause__ is not None:
        from crystallm.cli.option_groups import validation_message

        if (message := validation_message(error)) is not None:
            return message
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        from crystallm.options import hint

        name = error.unused_tokens[0]
        return f"no command {name!r}: {hint(name, list(COMMANDS))} (see --help)"
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        more = (
            "; put many formulas into a file, --requests" if "generate" in (error.command_chain or ()) else ""
        )
        return f"{' '.join(error.unused_tokens)!r} is more than the command takes{more} (see --help)"
    name = (error.token.keyword or "").partition("=")[0] if isinstance(error, UnknownOptionError) else ""
    if name in ELSEWHERE:
        return (
            f"{name} is an option of {ELSEWHERE[name]} alone: a condition decides little where the formula "
            "is given; search has --objective (see --help)"
        )
    return f"{str(error).rstrip('.')} (see --help)"


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"crystallm: {' '.join(message.split())}\n")
    return code
