"""The documentation's snippets are run as they stand there, page by page, with the parrot for a model."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from crystallm.cli import app
from tests.integration.test_readme import place  # noqa: F401 - a fixture

DOCS = Path(__file__).parents[2] / "docs"
pytestmark = pytest.mark.usefixtures("kept", "undrawn")
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
# What a page would fetch, push or train for long stands in `console` blocks, which are not run.
SNIPPET = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WORKERS = ("prepare", "prompts", "benchmark", "evaluate", "relax")


@pytest.fixture
def desk(place, monkeypatch):  # noqa: F811 - pytest hands it over so
    """The README's files, a host, and verdicts in this process: a worker takes seconds to start."""
    from pymatgen.core import Structure

    from crystallm.validity import checks

    monkeypatch.setattr(
        checks,
        "check_many",
        lambda texts, *, what="text", **_: [checks.check(text, what=what) for text in texts],
    )
    monkeypatch.setenv("CRYSTALLM_CACHE", str(place / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    frame = Structure.from_file("my_cifs/perovskite.cif")
    frame.remove_species(["O"])
    frame.replace_species({"Sr": "Ca"})
    (place / "hosts").mkdir()
    frame.to(filename="my_cifs/frame.cif")
    return place


@pytest.mark.parametrize("page", PAGES)
def test_the_snippets_of_a_page_run(page, desk, capsys):
    """In their order; Python ones share their names, as somebody would paste them."""
    names: dict[str, object] = {}
    if page == "serve.md":
        pytest.skip("its client runs against a server in test_web.py")
    for kind, code in SNIPPET.findall((DOCS / page).read_text(encoding="utf-8")):
        if kind == "python":
            exec(compile(code, page, "exec"), names)  # noqa: S102 - that is what is tested
            continue
        for line in code.splitlines():
            words = shlex.split(line, comments=True)
            if not words:
                continue
            assert words[0] == "crystallm", line
            # A minute of training for a minute of testing would be long.
            words = ["0.01" if before == "--minutes" else word for before, word in pairwise(words)]
            more = ["--workers", "1"] if words[0] in WORKERS else []
            assert app.run([*words, *more]) == 0, (line, capsys.readouterr().err)
    shutil.rmtree(desk / "cache", ignore_errors=True)


def test_every_page_is_in_the_site_and_every_link_leads_somewhere():
    site = tomllib.loads((DOCS.parent / "zensical.toml").read_text(encoding="utf-8"))
    listed = re.findall(r"'([\w/-]+\.md)'", str(site["project"]["nav"]))
    assert sorted(listed) == PAGES
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", (DOCS / page).read_text(encoding="utf-8")):
            assert (DOCS / page).parent.joinpath(target).exists(), (page, target)


def test_names_of_the_reference_are_there():
    from importlib import import_module

    for name in re.findall(r"^::: ([\w.]+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE):
        module, last = name.rsplit(".", maxsplit=1)
        assert getattr(import_module(module), last).__doc__, name


def test_the_yaml_of_a_queue_is_one():
    import yaml

    from crystallm.execution import job_queue
    from crystallm.options import validated

    (text,) = re.findall(
        r"^```yaml\n(.*?)^```$", (DOCS / "how-to/cluster.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert validated(job_queue.JobQueueOptions, yaml.safe_load(text)).walltime == "04:00:00"
