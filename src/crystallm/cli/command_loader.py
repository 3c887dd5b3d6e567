"""Commands by name, imported when they are first used, so that `--help` is quick.

`crystallm.cli.command_loader:generate` is the path that cyclopts loads the command `generate` from.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cyclopts import App, ArgumentCollection

from crystallm.errors import install

COMMANDS = {
    "generate": "generate",
    "search": "search",
    "solve": "solve",
    "complete": "complete",
    "relax": "energies",
    "evaluate": "evaluate",
    "hull": "energies",
    "score": "evaluate",
    "export": "export",
    "benchmark": "benchmark.csp",
    "references": "references",
    "prepare": "prepare",
    "train": "train",
    "prompts": "prepare",
    "models": "models",
    "convert": "models",
    "embeddings": "models",
    "serve": "serve",
    "energy_server": "energies",
    "cluster": "serve",
}
"""The module in `commands` of each command, in the order of the help."""

BENCHMARKS = {
    "csp": "benchmark.csp",
    "compounds": "benchmark.known",
    "classes": "benchmark.known",
    "novelty": "benchmark.generated",
    "unconditional": "benchmark.generated",
    "condition": "benchmark.condition",
}
"""The same for `crystallm benchmark`, of which csp is the default."""

REFERENCES = dict.fromkeys(("build", "energies", "relatives", "hypothetical"), "references")
"""The same for `crystallm references`."""

BENCHMARK = "Measure a model against known crystals."
GROUPS = {"benchmark": BENCHMARK, "references": "Make libraries of known crystals."}
"""Commands that have commands of their own, with their help."""


HELP = {"--help", "-h"}


class HelpApp(App):
    """A command whose help is printed: its arguments are assembled once, not three times as by cyclopts."""

    def assemble_argument_collection(self, **_: Any) -> ArgumentCollection:
        """Return all arguments of the command, with their help."""
        if "arguments" not in vars(self):
            vars(self)["arguments"] = super().assemble_argument_collection(parse_docstring=True)
        arguments: ArgumentCollection = vars(self)["arguments"]
        return arguments


def add_commands(app: App, commands: dict[str, str], words: Sequence[str] | None) -> None:
    """Add commands to an app, to be imported when they are used.

    Args:
        words: the command line, whose first word is a command with its whole docstring as help; others have
            the first line. None: all have it whole.
    """
    used = None if words is None else next(iter(words), "")
    for order, (name, module) in enumerate(commands.items()):
        dashed = name.replace("_", "-")
        if name in GROUPS and name == used and words is not None:
            group = group_app(name, words[1:])
            group.sort_key = order
            app.command(group)
            continue
        if words is not None and dashed == used and HELP.intersection(words):
            command = HelpApp(name=dashed, help_format="plaintext", sort_key=order)
            command.default(__getattr__(name))
            app.command(command)
            continue
        short = None if used in (None, dashed) else summary(module, name)
        app.command(f"{__name__}:{name}", name=dashed, help=short, sort_key=order)


def group_app(name: str, words: Sequence[str] | None = None) -> App:
    """Return a command of `GROUPS`; see `add_commands`."""
    group = App(name=name, help=GROUPS[name], help_format="plaintext")
    if name == "benchmark":
        group.default(__getattr__("csp"))  # `crystallm benchmark mp_20`
    add_commands(group, BENCHMARKS if name == "benchmark" else REFERENCES, words)
    return group


def summary(module: str, name: str) -> str:
    """Return the first line of a command's docstring, read from its source."""
    if name in GROUPS:
        return GROUPS[name]
    path = Path(__file__).parent.joinpath("commands", *module.split(".")).with_suffix(".py")
    source = path.read_text(encoding="utf-8")
    found = re.search(rf'^def {name}\(.*?"""(.*?)\n', source, re.DOTALL | re.MULTILINE)
    return "" if found is None else found[1].removesuffix('"""')


def __getattr__(name: str) -> Any:
    """Return a command: a function whose docstring and option groups are ready for cyclopts."""
    if name in GROUPS:
        return group_app(name)
    modules = COMMANDS | BENCHMARKS | REFERENCES
    if name not in modules:
        raise AttributeError(name)
    # Later than these checks: `from ... import` looks for `__path__` here, and options load pydantic.
    from crystallm.cli.option_groups import set_flags

    command = getattr(importlib.import_module(f"crystallm.cli.commands.{modules[name]}"), name)
    set_flags(command)
    command.__doc__ = help_text(command)
    return command


def help_text(command: Callable[..., None]) -> str:
    """Return the docstring of a command, each paragraph on one line, which the terminal then breaks."""
    text = re.sub(
        r"pip install 'crystallm\[(\w+)\]'", lambda match: install(match[1]), inspect.getdoc(command) or ""
    )
    paragraphs = text.split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
