"""Commands are imported when they are used, and listed without being imported."""

import subprocess
import sys

import pytest

from crystallm.cli import command_loader
from crystallm.cli.app import make_app


@pytest.mark.parametrize("name", sorted(command_loader.COMMANDS.keys() - command_loader.GROUPS))
def test_the_summary_is_the_first_line_of_the_docstring(name):
    command = getattr(command_loader, name)
    summary = command_loader.summary(command_loader.COMMANDS[name], name)
    assert summary
    assert command.__doc__.startswith(summary)


def test_the_list_of_commands_imports_none_and_no_options():
    code = (
        "import sys; from crystallm.cli.app import run; run(['--help']); "
        "print([m for m in sys.modules if m.startswith('crystallm.cli.commands.') or m == 'pydantic'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "Measure a model against known crystals." in done.stdout


def test_there_is_no_other_command():
    with pytest.raises(AttributeError):
        command_loader.anything  # noqa: B018 - it raises
    assert "benchmark" in make_app([])


def test_the_help_of_a_command_is_that_of_cyclopts(capsys):
    pages = []
    for words in (["models", "--help"], None):  # with None the command is one of cyclopts' own
        make_app(words)(["models", "--help"], result_action="return_value")
        pages.append(capsys.readouterr().out)
    assert "--fetch" in pages[0]
    assert pages[0] == pages[1]
