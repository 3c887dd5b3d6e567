"""Measure the source: sizes, imports, names, words. `python tests/house.py` rewrites `allowances.json`.

`allowances.json` lists what exceeds a limit today. Tests fail if a listed number grows, if a new entry
appears, or if an entry is no longer needed, so that the list only gets shorter.
"""

from __future__ import annotations

import ast
import json
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "crystallm"
ALLOWANCES = Path(__file__).with_name("allowances.json")

MODULE_LINES, FUNCTION_LINES, CLASS_LINES = 400, 60, 250
PACKAGE_FILES, TOP_MODULES = 12, 7

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

WORDS = {
    "refuses to know": "does not depend on",
    "losable": "killable",
    "beginnings?": "prefix",
    "numbers? that (?:is|are) none": "NaN",
    "what is no": "invalid",
    "mend(?:s|ed|ing)?": "remedy, fix",
    "told": "given, reported",
    "sheets?": "summary",
    "desk": "crystal tasks",
    "whoever": "callers, users",
    "so many": "n",
    "goe?s? on where": "resumes",
    "judge[sd]?|judging": "check",
    "verdicts?": "validity",
    "weigh(?:s|ed|ing)?": "compute energies, estimate probabilities",
    "freaks?": "pathological cells",
    "anew": "again",
    "taken? back|takes back": "backtrack",
    "odd bonds?": "implausible bonds",
    "fold(?:s|ed|ing)": "cluster",
    "(?:asks|asked|asking) for|(?:is|are|was|were) asked|asking": "request",
    "sound (?:ones?|crystals?)": "valid",
    "light tokens?": "low-weight tokens",
    "(?:that|which) is none": "invalid",
    "on wish": "optionally",
}
"""Words distinctive enough to search for, and what to write instead (the glossary of CONTRIBUTING.md)."""

_WORDS = re.compile(rf"\b(?:{'|'.join(WORDS)})\b", re.IGNORECASE)


@cache
def modules() -> dict[str, Path]:
    """Every module and package below `crystallm`, by its dotted name."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
        names[name.removesuffix(".__init__")] = path
    return {name: path for name, path in names.items() if name not in ("__init__", "__main__")}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def definitions(path: Path) -> dict[str, Definition]:
    """Classes and functions of a module, nested ones among them, by their qualified name."""
    found: dict[str, Definition] = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = prefix
            if isinstance(child, (*FUNCTIONS, ast.ClassDef)):
                inner = f"{prefix}{child.name}."
                found.setdefault(inner[:-1], child)
            visit(child, inner)

    visit(tree(path), "")
    return found


def body_lines(node: Definition) -> int:
    """Lines of a body without signature and docstring."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (node.end_lineno or 0) - body[0].lineno + 1 if body else 0


def imports() -> dict[str, set[str]]:
    """Modules of ours that each module imports; imports for typing and inside functions count."""
    known = modules()
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        edges = set()
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "crystallm":
                base = (node.module or "").removeprefix("crystallm").removeprefix(".")
                for alias in node.names:
                    whole = f"{base}.{alias.name}".removeprefix(".")
                    edges.add(whole if whole in known else base)
            elif isinstance(node, ast.Import):
                edges |= {alias.name.removeprefix("crystallm.") for alias in node.names}
        graph[name] = (edges & set(known)) - {name}
    return graph


def circles() -> dict[str, int]:
    """Groups of modules that import each other, directly or over others, with their size."""
    graph = imports()

    def reachable(start: str) -> frozenset[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            new = graph[waiting.pop()] - seen
            seen |= new
            waiting += new
        return frozenset(seen)

    reach = {name: reachable(name) for name in graph}
    groups = {tuple(sorted(m for m in reach[n] if n in reach[m])) for n in graph if n in reach[n]}
    return {", ".join(group): len(group) for group in sorted(groups)}


def option_declarations() -> dict[str, int]:
    """Options that are declared more than once, with the number of declarations.

    A declaration is a field of a pydantic model that is not the `same` as one of another model, or a
    parameter of a command that is neither a group of options nor `Positional`, which stands for a field.
    """
    commands = {
        name
        for node in tree(PACKAGE / "cli" / "command_loader.py").body
        if isinstance(node, ast.Assign) and _last(node.targets[0]) in ("COMMANDS", "BENCHMARKS")
        for name in ast.literal_eval(node.value)
    }
    classes = {
        (name, inner): node
        for name, path in modules().items()
        for inner, node in definitions(path).items()
        if isinstance(node, ast.ClassDef)
    }
    models = {"BaseModel"}
    while True:
        more = {node.name for node in classes.values() if models & {_last(base) for base in node.bases}}
        if more <= models:
            break
        models |= more
    places = defaultdict(list)
    for (name, _), node in classes.items():
        if node.name in models:
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value:
                    if isinstance(line.value, ast.Call) and _last(line.value.func) == "same":
                        continue
                    places[line.target.id].append(f"{name}.{node.name}")
    for name, path in modules().items():
        if not name.startswith("cli.commands."):
            continue
        for node in tree(path).body:
            if isinstance(node, ast.FunctionDef) and node.name in commands:
                for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]:
                    if argument.annotation and not ({*models, "Positional"} & _names(argument.annotation)):
                        places[argument.arg].append(f"{name}.{node.name}")
    return {option: len(homes) for option, homes in sorted(places.items()) if len(homes) > 1}


def _last(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _names(node: ast.expr) -> set[str]:
    return {_last(part) for part in ast.walk(node) if isinstance(part, ast.Attribute | ast.Name)}


def docstrings(path: Path) -> list[str]:
    """Docstrings of a module, attribute docstrings among them, and help texts of options."""
    texts = []
    for node in ast.walk(tree(path)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            texts.append(node.value.value)
        elif isinstance(node, ast.keyword) and node.arg in ("help", "description"):
            texts += [
                part.value
                for part in ast.walk(node.value)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            ]
    return texts


def words() -> dict[str, int]:
    """Words of the glossary's left column in README, docs, docstrings and help texts: how often, by file."""
    counts = {}
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    texts = {page: [_prose(page.read_text(encoding="utf-8"))] for page in pages if not _is_generated(page)}
    texts |= {path: docstrings(path) for path in modules().values()}
    for path, parts in texts.items():
        if n := sum(len(_WORDS.findall(part)) for part in parts):
            counts[path.relative_to(ROOT).as_posix()] = n
    return counts


def _is_generated(page: Path) -> bool:
    """Whether a page repeats docstrings, which are counted where they stand."""
    return page.name == "architecture.md" or "Written by scripts/" in page.read_text(encoding="utf-8")


def _prose(page: str) -> str:
    """A page without code."""
    return re.sub(r"`[^`\n]+`", "", re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL))


def excesses() -> dict[str, dict[str, int]]:
    """All that exceeds a limit, by kind and name."""
    kinds: dict[str, dict[str, int]] = defaultdict(dict)
    homes = defaultdict(list)
    for name, path in modules().items():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MODULE_LINES:
            kinds["modules"][name] = lines
        for inner, node in definitions(path).items():
            if isinstance(node, ast.ClassDef):
                homes[inner.rsplit(".", 1)[-1]].append(name)
                if (n := (node.end_lineno or 0) - node.lineno + 1) > CLASS_LINES:
                    kinds["classes"][f"{name}.{inner}"] = n
            elif (n := body_lines(node)) > FUNCTION_LINES:
                kinds["functions"][f"{name}.{inner}"] = n
        if path.name != "__init__.py" and not test_file(name).exists():
            kinds["untested"][name] = 1
    kinds["class_names"] = {name: len(places) for name, places in sorted(homes.items()) if len(places) > 1}
    for folder in sorted({path.parent for path in modules().values()} - {PACKAGE}):
        files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        if len(files) > PACKAGE_FILES:
            kinds["packages"][folder.relative_to(PACKAGE).as_posix()] = len(files)
    mirrored = {test_file(name) for name in modules()} | {ROOT / "tests" / "test_architecture.py"}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if path not in mirrored and path.parent.name != "integration":
            kinds["mirrors_nothing"][path.relative_to(ROOT).as_posix()] = 1
    kinds["circles"] = circles()
    kinds["option_declarations"] = option_declarations()
    kinds["words"] = words()
    return dict(kinds)


def test_file(name: str) -> Path:
    """The test file of a module."""
    *packages, last = name.split(".")
    return ROOT.joinpath("tests", *packages, f"test_{last}.py")


def complaints(kind: str) -> list[str]:
    """What the allowances do not cover, and which of them are no longer needed."""
    measured = excesses().get(kind, {})
    allowed = json.loads(ALLOWANCES.read_text(encoding="utf-8")).get(kind, {})
    new = [f"{name}: {n}" for name, n in measured.items() if n > allowed.get(name, 0)]
    return new + [
        f"{name}: within the limit, run python tests/house.py" for name in allowed if name not in measured
    ]


if __name__ == "__main__":
    text = json.dumps(
        {kind: entries for kind, entries in excesses().items() if entries}, indent=1, sort_keys=True
    )
    ALLOWANCES.write_text(text + "\n", encoding="utf-8")
