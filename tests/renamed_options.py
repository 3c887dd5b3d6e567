"""Run documented commands while options are being renamed: first as documented, then with the old names.

Goes as soon as all options have their new names.
"""

from __future__ import annotations

import inspect

import crystallm
from crystallm.cli import app

OLD = {
    "--only-valid": "--valid", "--max-attempts": "--max-tries", "--requests": "--formulas",
    "--allow-fewer-elements": "--elements-subset", "--template": "--like", "--prompt-file": "--begin",
    "--max-minutes": "--minutes",
    "--choose-by-agreement": "--agreement", "--no-choose-by-agreement": "--no-agreement",
}  # fmt: skip


def run(words: list[str]) -> int:
    code = app.run(words)
    old = [OLD.get(word, word) for word in words]
    return app.run(old) if code == 2 and old != words else code


def python(code: str) -> str:
    parameters = inspect.signature(crystallm.generate).parameters
    return code if "template" in parameters else code.replace("template=", "like=")
