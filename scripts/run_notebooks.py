"""Run the notebooks of examples/, each in a folder of its own, and say how long they took.

python scripts/run_notebooks.py [NAME ...]

Cells are run as Python, in order; Jupyter need not be installed. Not part of `make test`: it takes minutes.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(path: Path) -> bool:
    """Run a notebook; whether it came to its end."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {"__name__": "__main__"}
    began, home = time.monotonic(), Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        try:
            for number, cell in enumerate(cells, 1):
                if cell["cell_type"] == "code":
                    code = compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec")
                    exec(code, names)  # noqa: S102 - that is what it is for
        except Exception:  # noqa: BLE001 - of any kind; it is told, and the next one runs
            traceback.print_exc()
            return False
        finally:
            os.chdir(home)
    print(f"== {path.name}: {time.monotonic() - began:.0f} s", flush=True)
    return True


def main() -> int:
    """Run all of them, or those that are named."""
    asked = [Path(name).name for name in sys.argv[1:]]
    paths = [path for path in sorted(EXAMPLES.glob("*.ipynb")) if not asked or path.name in asked]
    if not paths:
        print(f"no such notebook in {EXAMPLES}")
        return 2
    return 0 if all([run(path) for path in paths]) else 1  # noqa: C419 - all of them are run


if __name__ == "__main__":
    sys.exit(main())
