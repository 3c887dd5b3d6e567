"""Write the table of modules in docs/architecture.md anew, from the first line of each module's docstring.

python scripts/make_architecture.py
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "crystallm"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- modules -->", "<!-- end of modules -->"


def table() -> str:
    """A line a module, by name."""
    lines = {}
    for path in PACKAGE.rglob("*.py"):
        name = (
            path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        )
        if name in ("__init__", "__main__"):
            continue
        said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        first = said.split("\n", maxsplit=1)[0].replace("|", "\\|")
        lines[name] = f"| `{name}` | {first} |"
    return "\n".join(["| module | what it is |", "|---|---|", *(lines[name] for name in sorted(lines))])


def main() -> None:
    """Put the table between its marks."""
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    PAGE.write_text(f"{head}{BEGIN}\n{table()}\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
