"""Run the notebooks of examples/, each in its own folder, and report their times.

python scripts/run_notebooks.py [--store] [NAME ...]

Cells run as Python, in order, without Jupyter. `--store` saves in the notebooks what their cells print. It
takes minutes, so it is not part of `make test`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(path: Path, *, store: bool) -> bool:
    """Run a notebook and return whether it succeeded."""
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    names: dict[str, object] = {"__name__": "__main__"}
    start, home = time.monotonic(), Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for number, cell in enumerate(notebook["cells"], 1):
                if cell["cell_type"] == "code":
                    printed = _run_cell("".join(cell["source"]), f"{path.name}, cell {number}", names)
                    lines = printed.splitlines(keepends=True)
                    stream = {"name": "stdout", "output_type": "stream", "text": lines}
                    cell["outputs"] = [stream] if lines else []
        except Exception:  # noqa: BLE001 - report any error and go on with the next notebook
            traceback.print_exc()
            return False
        finally:
            os.chdir(home)
    if store:
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"== {path.name}: {time.monotonic() - start:.0f} s", flush=True)
    return True


def _run_cell(source: str, name: str, names: dict[str, object]) -> str:
    """Run a cell and return what it prints."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(source, name, "exec"), names)  # noqa: S102 - running notebooks is the purpose
    finally:
        print(printed.getvalue(), end="", flush=True)
    return printed.getvalue()


def main() -> int:
    """Run all notebooks, or those named."""
    words = sys.argv[1:]
    store = "--store" in words
    named = [Path(word).name for word in words if word != "--store"]
    paths = [path for path in sorted(EXAMPLES.glob("*.ipynb")) if not named or path.name in named]
    if not paths:
        print(f"no such notebook in {EXAMPLES}")
        return 2
    return 0 if all([run(path, store=store) for path in paths]) else 1  # noqa: C419 - run all of them


if __name__ == "__main__":
    sys.exit(main())
