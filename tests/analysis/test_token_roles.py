"""The part of a crystal that each token describes."""

from __future__ import annotations

import pytest

from crystallm import language
from crystallm.analysis import token_roles
from crystallm.cif import tokenizer
from real_crystals import published


@pytest.fixture(scope="module")
def book(textbook_structures):
    return {name: language.get_language("orbits").encode(s) for name, s in textbook_structures.items()}


def told_in_parts(tongue, ids):
    """The tokens of each part, as a person reads them."""
    found = {part: [] for part in token_roles.PARTS}
    for part, token in zip(token_roles.parts(tongue, ids), ids, strict=True):
        found[part].append(token)
    return {part: tongue.text(tokens) for part, tokens in found.items()}


def test_every_token_of_our_language_has_its_part(book):
    tongue = language.get_language("orbits")
    assert told_in_parts(tongue, book["rutile"]) == {
        "composition": "<crystal> Ti 2 O 4",
        "space_group": "(P4_2/mnm)",
        "orbits": "Ti 2a O 4f",
        "cell": tongue.text(book["rutile"][10:14]),
        "coordinates": "0.30 6' <end>",
    }


def test_every_token_of_the_published_language_has_its_part():
    row = published()[0]
    tongue = language.get_language("cif")
    ids = tokenizer.encode(row["text"])
    found = told_in_parts(tongue, ids)
    lines = row["text"].split("\n")
    begin = lines.index("_atom_site_occupancy") + 1
    rows = [line.split(" ") for line in lines[begin:] if line]
    assert found["orbits"].endswith("".join(" ".join(r[:3]) + " " for r in rows))
    assert found["coordinates"] == "".join(" ".join(r[3:]) + "\n" for r in rows) + "\n"
    cell = [line for line in lines if line.startswith(("_cell_l", "_cell_a", "_cell_v"))]
    assert found["cell"] == "".join(f"{line}\n" for line in cell)
    assert found["composition"].startswith(lines[0])
    assert "_chemical_formula_sum" in found["composition"]
    assert found["space_group"].endswith("loop_\n_symmetry_equiv_pos_site_id\n"
                                         "_symmetry_equiv_pos_as_xyz\n1 'x, y, z'\n")  # fmt: skip
