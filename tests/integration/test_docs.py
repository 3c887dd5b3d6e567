"""The documentation's snippets run as printed, page by page, with the parrot as the model."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from crystallm.cli import app
from tests.integration.test_readme import checks_here, readme_files  # noqa: F401 - fixtures

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
# Commands that download, push, need an extra or train for long are in `console` blocks, which are not run.
SNIPPET = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WORKERS = ("prepare", "prompts", "benchmark", "evaluate", "relax")


@pytest.fixture
def docs_files(readme_files, checks_here, monkeypatch):  # noqa: F811 - pytest injects fixtures so
    """README's files, and a crystal to complete."""
    from pymatgen.core import Structure

    monkeypatch.setenv("CRYSTALLM_CACHE", str(readme_files / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    frame = Structure.from_file("my_cifs/perovskite.cif")
    frame.remove_species(["O"])
    frame.replace_species({"Sr": "Ca"})
    frame.to(filename="my_cifs/frame.cif")
    values = enumerate(("rocksalt", "rutile", "perovskite", "wurtzite", "diamond"))
    Path("hardness.csv").write_text(
        "id,hardness\n" + "".join(f"{name},{2.5 + 3 * i}\n" for i, name in values)
    )
    return readme_files


@pytest.mark.usefixtures("kept", "undrawn", "docs_files")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if SNIPPET.search((DOCS / page).read_text(encoding="utf-8"))]
)
def test_the_snippets_of_a_page_run(page, capsys):
    """In order; Python snippets share their names, as if pasted one after another."""
    names: dict[str, object] = {}
    if page == "reference/http.md":
        pytest.skip("tests/web/test_app.py runs its client against a server")
    for kind, code in SNIPPET.findall((DOCS / page).read_text(encoding="utf-8")):
        if kind == "python":
            exec(compile(code, page, "exec"), names)  # noqa: S102 - the code of the page is the subject
            continue
        for line in code.splitlines():
            words = shlex.split(line, comments=True)
            if not words:
                continue
            assert words[0] == "crystallm", line
            # A minute of training would make the test a minute longer.
            words = ["0.01" if before.endswith("minutes") else word for before, word in pairwise(words)]
            more = ["--workers", "1"] if words[0] in WORKERS else []
            assert app.run([*words, *more]) == 0, (line, capsys.readouterr().err)
    shutil.rmtree("cache", ignore_errors=True)


def test_every_page_is_in_the_site_and_every_link_leads_somewhere():
    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    listed = re.findall(r"'([\w/-]+\.md)'", str(site["project"]["nav"]))
    assert sorted(listed) == PAGES
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(DOCS / name for name in PAGES)]:
        text = page.read_text(encoding="utf-8")
        for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^):]*))?\)", text):
            path = page.parent.joinpath(target) if target else page
            assert path.exists(), (page, target)
            assert not anchor or anchor in anchors(path), (page, target, anchor)


def anchors(path: Path) -> set[str]:
    """Headings of a page as the site links them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


def test_every_option_in_guides_exists():
    option = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
    known = set(option.findall((DOCS / "reference" / "commands.md").read_text(encoding="utf-8")))
    known |= {name.replace("--", "--no-", 1) for name in known}
    others = {"--help", "--index-url", "--nproc-per-node", "--cifs"}  # pip, torchrun, LeMat-GenBench
    for path in [ROOT / "README.md", *sorted((DOCS / "how-to").glob("*.md")), DOCS / "faq.md"]:
        unknown = set(option.findall(path.read_text(encoding="utf-8"))) - known - others
        assert not unknown, path.name


def test_every_relative_include_of_a_page_exists():
    for page in PAGES:
        for target in re.findall(
            r'^--8<-- "([^":]+)', (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE
        ):
            assert (ROOT / target).is_file(), (page, target)


def test_names_of_the_python_reference_exist_and_have_docstrings():
    from importlib import import_module

    text = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    names = re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)
    assert {"crystallm.structure_search.api.search", "crystallm.generation.generate.generate"} <= set(names)
    for name in names:
        module, last = name.rsplit(".", maxsplit=1)
        assert getattr(import_module(module), last).__doc__, name


def test_generated_pages_are_up_to_date():
    """After a change of options, columns or notebooks: python scripts/make_reference.py."""
    path = ROOT / "scripts" / "make_reference.py"
    spec = importlib.util.spec_from_file_location("make_reference", path)
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    pages = script.pages()
    assert len(pages) >= 9
    stale = [path.name for path, text in pages.items() if path.read_text(encoding="utf-8") != text]
    assert stale == []


def test_every_column_of_results_has_a_description():
    rows = re.findall(
        r"^\| `(\w+)` \| \w+ \| (.*) \|$", (DOCS / "reference" / "files.md").read_text(), re.MULTILINE
    )
    assert len(rows) > 30
    assert [name for name, content in rows if not content] == []


def test_the_yaml_of_a_queue_is_valid():
    import yaml

    from crystallm.execution import job_queue

    (text,) = re.findall(
        r"^```yaml\n(.*?)^```$", (DOCS / "how-to/cluster.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert job_queue.JobQueueOptions.build(yaml.safe_load(text)).walltime == "04:00:00"
