"""Prompts and errors of the published language."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from crystallm import language
from crystallm.cif import tokenizer
from crystallm.crystallography import space_groups
from crystallm.errors import InputError

ROCKSALT = (("Cl", 4), ("Na", 4))

PROPERTIES = """\
data_Na4Cl4
loop_
_atom_type_symbol
_atom_type_electronegativity
_atom_type_radius
_atom_type_ionic_radius
Na 0.9300 1.8000 1.1600
Cl 3.1600 1.0000 0.7800
_symmetry_space_group_name_H-M Fm-3m
"""


def test_prompts_are_the_published_ones() -> None:
    cif = language.get_language("cif")
    assert cif.text(cif.prompt()) == "data_"
    assert cif.text(cif.prompt(ROCKSALT)) == "data_Na4Cl4\n"
    assert cif.text(cif.prompt(ROCKSALT, 225)) == PROPERTIES


def test_prompts_are_beginnings_of_the_published_texts() -> None:
    cif = language.get_language("cif")
    with gzip.open(Path(__file__).parents[1] / "golden" / "texts.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    from crystallm.cif.parser import parse

    for row in rows:
        parsed = parse(row["text"])
        prompt = cif.prompt(reversed(parsed.composition), parsed.space_group_number)
        assert row["ids"][: len(prompt)] == prompt


@pytest.mark.parametrize("number", [93, 168, 207])
def test_groups_without_a_token_are_refused_by_name(number: int) -> None:
    symbol = space_groups.get(number).symbol
    with pytest.raises(InputError, match=f"no token for the space group {symbol}"):
        language.get_language("cif").prompt(ROCKSALT, number)


def test_a_structure_in_a_group_without_a_token_is_refused() -> None:
    generic = [[0.13, 0.21, 0.32], [0.4, 0.05, 0.1]]
    structure = Structure.from_spacegroup("P6", Lattice.hexagonal(9, 7), ["Na", "Cl"], generic)
    with pytest.raises(InputError, match="no token for the space group P6"):
        language.get_language("cif").encode(structure)


def test_any_beginning_of_a_text_is_a_prompt() -> None:
    cif = language.get_language("cif")
    for stop in range(len(PROPERTIES)):
        ids = cif.ids(PROPERTIES[:stop])
        assert all(0 <= i <= tokenizer.UNKNOWN for i in ids)
