"""Write the generated pages of the reference: commands, option models, columns of results, notebooks.

python scripts/make_reference.py

Commands come from the command line, options from the pydantic models, notebooks from examples/. A test
compares the pages with what this script would write.
"""

from __future__ import annotations

import ast
import json
import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "crystallm"
DOCS = ROOT / "docs"
GENERATED = "<!-- Written by scripts/make_reference.py. -->"

COLUMNS = {
    "request": "index of the request in the run, from 0",
    "sample": "index of the sample in its request, from 0",
    "requested_formula": "formula of the request, as given",
    "requested_elements": "chemical system of the request",
    "requested_z": "Z of the request; null if it was open",
    "requested_space_group": "space group of the request",
    "prompt": "prefix of the text, if one was given",
    "conditions": "values of properties that the network was given",
    "z_probability": "probability of this Z among those tried",
    "space_group_probability": "probability of this space group among those tried",
    "formula": "content of the conventional cell",
    "reduced_formula": "reduced formula",
    "z": "formula units in the cell",
    "n_atoms": "atoms in the cell",
    "space_group": "Hermann-Mauguin symbol",
    "space_group_number": "1 to 230",
    "a": "cell length, Å",
    "b": "cell length, Å",
    "c": "cell length, Å",
    "alpha": "cell angle, degrees",
    "beta": "cell angle, degrees",
    "gamma": "cell angle, degrees",
    "volume_per_atom": "Å³ per atom",
    "log_likelihood": "log-likelihood of the sampled tokens, nats",
    "n_tokens": "tokens of the text",
    "ended": "whether the text is complete",
    "valid": "whether all checks pass",
    "plausible": "whether it is valid and has the distances and volume of known crystals",
    "reasons": "which checks fail, and why",
    "bond_score": "share of bonds with a reasonable length",
    "cluster": "cluster of equal crystals; null without ranking",
    "cluster_size": "crystals in the cluster",
    "rank": "rank in the request, from 1",
    "kept": "false for what --only-valid or --best leave out",
    "energy": "eV/atom; null without an energy model",
    "energy_reason": "why the energy is missing",
    "formation_energy": "eV/atom",
    "e_above_hull": "energy above the hull, eV/atom",
    "model": "fingerprint or name of the model",
    "seed": "seed of the run",
    "sample_index": "index of the random stream",
    "relative": "id of the known crystal whose elements were exchanged",
    "relative_formula": "its reduced formula",
    "relative_distance": "distance of its elements to the requested ones; 0: the same",
    "file": "name of the CIF",
    "text": "text in the language of the model",
    "cif": "CIF for other programs",
}
"""What each column of a table of crystals holds."""


def commands_page() -> str:
    """Return the page of all commands and their options."""
    from crystallm.cli.app import make_app

    pages: str = make_app().generate_docs(output_format="markdown", recursive=True)
    head = f"# Commands\n\n{GENERATED}\n\nEvery option can also stand in a YAML file that `--config` names."
    body = pages.split("\n", maxsplit=1)[1]
    # cyclopts shows how Python was started: `crystallm generate -m pytest` in a test.
    body = re.sub(r"^(crystallm(?: [\w-]+)*?) -m \S+", r"\1", body, flags=re.MULTILINE)
    return head + "\n\n" + _without_trailing_blanks(body)


def _without_trailing_blanks(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n") + "\n"


def model_names() -> dict[str, list[str]]:
    """Return the pydantic models by module, found in the sources without importing them."""
    trees = {
        path: ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
        if "pydantic" in (text := path.read_text(encoding="utf-8")) or "Options" in text
    }
    models = {"BaseModel"}
    classes = [
        (path, node) for path, tree in trees.items() for node in tree.body if isinstance(node, ast.ClassDef)
    ]
    while True:
        more = {node.name for _, node in classes if models & {_last_name(base) for base in node.bases}}
        if more <= models:
            break
        models |= more
    found: dict[str, list[str]] = {}
    for path, node in classes:
        if node.name in models:
            name = path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".")
            found.setdefault(name, []).append(node.name)
    return found


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def options_page() -> str:
    """Return the page of all pydantic models with their fields."""
    from pydantic import BaseModel

    lines = [
        "# Option models",
        "",
        GENERATED,
        "",
        "Commands, Python, YAML files and the HTTP API share these models. Unknown names are rejected.",
    ]
    for module, names in model_names().items():
        for name in names:
            model = getattr(import_module(module), name)
            if issubclass(model, BaseModel) and model.model_fields and not name.startswith("_"):
                lines += ["", *_section(model)]
    return "\n".join(lines) + "\n"


def _section(model: type[BaseModel]) -> Iterator[str]:
    yield f"## {model.__name__}"
    yield ""
    summary = (model.__doc__ or "").strip().split("\n\n")[0]
    yield f"`{model.__module__}.{model.__name__}`: {' '.join(summary.split())}"
    yield ""
    yield "| field | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in model.model_fields.items():
        meaning = " ".join((field.description or "").split())
        cells = (f"`{name}`", f"`{_type(field)}`", _default(field), meaning + _bounds(field))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type(field: FieldInfo) -> str:
    kind = field.annotation
    name = kind.__name__ if isinstance(kind, type) else str(kind)
    return re.sub(r"\b(?:typing|pathlib|crystallm(?:\.\w+)*)\.(_local\.)?", "", name)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True, validated_data={})
    return f"`{value!r}`" if len(repr(value)) < 60 else "see the model"


def _bounds(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [
        f"{sign} {getattr(constraint, name)}"
        for constraint in field.metadata
        for name, sign in signs.items()
        if getattr(constraint, name, None) is not None
    ]
    return f" ({', '.join(bounds)})" if bounds else ""


def columns_table() -> str:
    """Return the table of the columns of results."""
    from crystallm.crystals import table

    lines = ["| column | type | content |", "|---|---|---|"]
    lines += [f"| `{name}` | {kind} | {COLUMNS.get(name, '')} |" for name, kind in table.COLUMNS.items()]
    return "\n".join(lines)


def notebook_page(path: Path) -> str:
    """Return a notebook as Markdown: its texts, its code, and the output that it stores."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        source = "".join(cell["source"]).rstrip()
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```py\n{source}\n```")
        printed = "".join("".join(output.get("text", "")) for output in cell.get("outputs", [])).rstrip()
        if printed:
            parts.append(f"```text\n{printed}\n```")
    parts.insert(1, f"{GENERATED}\n\nThis page shows the notebook `examples/{path.name}`.")
    return "\n\n".join(parts) + "\n"


def pages() -> dict[Path, str]:
    """Return all generated pages by their path."""
    made = {
        DOCS / "reference" / "commands.md": commands_page(),
        DOCS / "reference" / "options.md": options_page(),
    }
    files = DOCS / "reference" / "files.md"
    head, rest = files.read_text(encoding="utf-8").split("<!-- columns -->")
    _, tail = rest.split("<!-- end of columns -->")
    made[files] = f"{head}<!-- columns -->\n{columns_table()}\n<!-- end of columns -->{tail}"
    for path in sorted((ROOT / "examples").glob("*.ipynb")):
        made[DOCS / "tutorial" / "notebooks" / f"{path.stem}.md"] = notebook_page(path)
    return made


def main() -> None:
    """Write the pages."""
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
