"""What a network reads before a crystal: what relatives of other formulas make of its composition."""

from __future__ import annotations

from crystallm.crystallography import formula
from crystallm.orbits import language
from crystallm.references.library import Library
from crystallm.references.reading.tokens import MAX_TOKENS, RelativesReader, relatives_of
from known_crystals import library, member

END = language.ids("<end>")[0]


def texts(counts: dict[str, int], n: int = 4, known: Library | None = None) -> list[str]:
    ids = relatives_of(known or library(), counts, n)
    return language.text(ids).replace("<end>", "<end>\n").splitlines()


def test_the_best_relative_stands_last_with_the_elements_of_the_composition() -> None:
    found = texts({"Ge": 2, "O": 4}, 4)
    assert found[-1].startswith("(P4_2/mnm) Ge 2a O 4f V")
    several = texts({"Be": 4, "O": 4}, 4)
    assert several[-1].startswith("(Fm-3m)")
    assert texts({"Be": 4, "O": 4}, n=1) == several[-1:]


def test_each_one_makes_a_crystal_behind_the_composition() -> None:
    counts = {"Ca": 1, "Ti": 1, "O": 3}
    for text in texts(counts):
        made = language.from_ids([*language.prompt(counts.items()), *language.ids(text)])
        assert dict(made.composition) == counts


def test_crystals_of_the_formula_itself_are_not_read() -> None:
    known = Library.of([("one", "textbook", member("rutile", ("Ti", "O")))])
    assert relatives_of(known, {"Ti": 2, "O": 4}, 4) == []
    assert relatives_of(known, {"Sn": 2, "O": 4}, 4) != []
    assert relatives_of(known, {"Sn": 4, "O": 8}, 4) == []


def test_relatives_leave_room_for_the_crystal() -> None:
    assert len(relatives_of(library(), {"Be": 2, "O": 2}, 100)) <= MAX_TOKENS
    assert relatives_of(library(), {"Be": 2, "O": 2}, 100).count(END) <= 100


def test_a_reader_keeps_the_tokens_of_a_cell() -> None:
    cell = formula.cell("Ge2O4")
    reader = RelativesReader(library(), 2)
    assert list(reader.tokens(cell)) == relatives_of(library(), dict(cell.composition), 2) != []
    assert reader.tokens(cell) is reader.tokens(formula.cell("Ge2O4"))
    assert reader.tokens(None) == RelativesReader(None, 2).tokens(cell) == ()
    assert RelativesReader(library(), 0).tokens(cell) == ()
