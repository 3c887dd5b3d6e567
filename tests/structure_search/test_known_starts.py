"""Crystals made of known ones begin a search."""

from __future__ import annotations

from crystallm.generation.interpretation import interpret
from crystallm.generation.request import Request, with_default_z
from crystallm.language import get_language
from crystallm.structure_search.known_starts import known_starts
from crystallm.structure_search.policy import SearchPrompt
from known_crystals import library


def starts(formula: str, *prompts: str, name: str = "orbits", z: int | None = None) -> list[tuple[str, int]]:
    language = get_language(name)
    roots = [SearchPrompt(tuple(language.ids(prompt)), 1.0) for prompt in prompts]
    plan = interpret(with_default_z(Request(formula=formula, z=z)))
    found = known_starts(library(), plan, roots, language, 9)
    return [(language.text(list(start.ids)), start.root) for start in found]


def test_each_is_a_whole_crystal_under_its_prompt() -> None:
    found = starts("BeO", "<crystal> Be 2 O 2", "<crystal> Be 4 O 4")
    assert {root for _, root in found} == {0, 1}
    for text, root in found:
        assert text.startswith(("<crystal> Be 2 O 2", "<crystal> Be 4 O 4")[root])
        assert text.endswith("<end>")


def test_those_of_other_cells_are_left_out() -> None:
    assert {root for _, root in starts("BeO", "<crystal> Be 4 O 4")} == {0}
    assert starts("BeO", "<crystal> Be 3 O 3") == []
    assert starts("Be2O7", "<crystal> Be 2 O 7") == []


def test_the_published_language_has_them_too() -> None:
    found = starts("RbCl", "data_Rb4Cl4\n", name="cif", z=4)
    assert any("Fm-3m" in text for text, _ in found)
