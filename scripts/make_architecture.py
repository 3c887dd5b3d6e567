"""Write the tables of packages and modules in docs/architecture.md, from the first lines of their docstrings.

python scripts/make_architecture.py
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "crystallm"
PAGE = ROOT / "docs" / "architecture.md"


def modules() -> dict[str, Path]:
    """Return every module and package below `crystallm` by its name."""
    paths = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
        paths[name.removesuffix(".__init__")] = path
    return {name: path for name, path in paths.items() if name not in ("__init__", "__main__")}


def summary(path: Path) -> str:
    """Return the first line of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.split("\n", maxsplit=1)[0].replace("|", "\\|")


def packages_table() -> str:
    """Return a table of the packages."""
    lines = ["| package | what it is |", "|---|---|"]
    for name, path in modules().items():
        if path.name != "__init__.py" or "." in name:
            continue
        lines.append(f"| [`{name}`](#{name}) | {summary(path)} |")
    return "\n".join(lines)


def modules_table() -> str:
    """Return a section for each package, with a table of its modules."""
    sections: dict[str, list[str]] = {"crystallm": []}
    for name, path in modules().items():
        package, _, rest = name.partition(".")
        if path.name == "__init__.py":
            if not rest:
                sections[package] = []
            continue
        sections[package if rest else "crystallm"].append(f"| `{name}` | {summary(path)} |")
    parts = []
    for package in sorted(sections):
        head = [f"### {package}", "", "| module | what it does |", "|---|---|"]
        parts.append("\n".join(head + sections[package]))
    return "\n\n".join(parts)


def page() -> str:
    """Return the page with its tables written anew."""
    text = PAGE.read_text(encoding="utf-8")
    for mark, table in (("packages", packages_table()), ("modules", modules_table())):
        pattern = rf"(<!-- {mark} -->\n).*?(<!-- end of {mark} -->)"
        text, n = re.subn(
            pattern, lambda match, table=table: match[1] + table + "\n" + match[2], text, flags=re.DOTALL
        )
        if n != 1:
            raise SystemExit(f"{PAGE} has no marks for {mark}")
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
