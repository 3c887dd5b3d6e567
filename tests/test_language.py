"""The published language offers what a language must, and says what it cannot."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from crystallm import language
from crystallm.cif import tokenizer
from crystallm.crystallography import space_groups
from crystallm.errors import InputError, TextError

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


@pytest.mark.parametrize("name", language.NAMES)
def test_every_language_fulfils_the_protocol(name: str) -> None:
    found = language.get_language(name)
    assert isinstance(found, language.Language)
    assert found.name == name
    ids = found.encode(RUTILE)
    assert all(0 <= i < len(found.vocabulary()) for i in ids)
    assert found.is_end(ids)
    assert not found.is_end(ids[:-1])
    assert tuple(ids[-len(found.end_ids) :]) == found.end_ids
    assert found.ids(found.text(ids)) == ids
    assert found.decode(ids).composition == RUTILE.composition
    for known in ((), ((("Ti", 2), ("O", 4)),), ((("Ti", 2), ("O", 4)), 136)):
        prompt = found.prompt(*known)
        assert ids[: len(prompt)] == prompt
    with pytest.raises(TextError):
        found.decode(ids[: len(ids) // 2])
    with pytest.raises(TextError):
        found.decode([len(found.vocabulary())])


RUTILE = Structure.from_spacegroup(
    "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
)


@pytest.mark.parametrize("name", language.NAMES)
def test_prompts_are_read_back(name: str) -> None:
    tongue = language.get_language(name)
    ids = tongue.encode(RUTILE)
    assert tongue.read_prompt(ids) == ({"Ti": 2, "O": 4}, 136)
    with pytest.raises(TextError):
        tongue.read_prompt(tongue.prompt((("Ti", 2), ("O", 4))))


@pytest.mark.parametrize("name", language.NAMES)
def test_the_group_has_one_token(name: str) -> None:
    tongue = language.get_language(name)
    ids = tongue.encode(RUTILE)
    token = tongue.group_token(136)
    assert [i for i in ids if tongue.is_group_token(i)] == [token]
    position = ids.index(token)
    assert tongue.group_is_next(ids[:position], [token])
    assert not tongue.group_is_next(ids[: position - 1], [ids[position - 1]])
    n_composition = len(tongue.prompt((("Ti", 2), ("O", 4))))
    end = ids[n_composition - 1] if name == "cif" else token
    assert tongue.ends_composition(end)
    assert not tongue.ends_composition(ids[1])
    tokens = {tongue.group_token(number) for number in range(1, 231)} - {None}
    assert len(tokens) == (227 if name == "cif" else 230)


def test_templates_fix_the_orbits_where_these_come_before_the_cell() -> None:
    orbits, cif = (language.get_language(name) for name in language.NAMES)
    template = ((("Ti", 2), ("O", 4)), 136, (("Ti", "2a"), ("O", "4f")))
    assert orbits.text(orbits.template_prompt(*template)).endswith("O 4 (P4_2/mnm) Ti 2a O 4f")
    assert cif.template_prompt(*template) == cif.prompt(*template[:2])


@pytest.mark.parametrize("name", language.NAMES)
def test_every_token_has_a_role(name: str) -> None:
    tongue = language.get_language(name)
    ids = tongue.encode(RUTILE)
    roles = tongue.token_roles(ids)
    assert len(roles) == len(ids)
    assert set(roles) == set(language.TOKEN_ROLES)
    assert roles[ids.index(tongue.group_token(136))] == "space_group"
    tokens = [tongue.vocabulary()[i] for i, role in zip(ids, roles, strict=True) if role == "coordinates"]
    assert set(tokens) & set(tongue.digits)


def test_no_other_module_depends_on_the_name_of_the_language() -> None:
    """Which language it is matters to these packages alone; all others call members of the protocol."""
    source = Path(language.__file__).parent
    free = ("cif", "orbits", "grammar")
    test = re.compile(
        r"""\bname\s*(?:==|!=|in)\s*\(?["'](?:cif|orbits)["']|language\.name\s*(?:==|!=|in\b)"""
    )
    for path in source.rglob("*.py"):
        name = path.relative_to(source).as_posix()
        if name.split("/")[0] in free or name in ("language.py", "generation/completion.py"):
            continue
        found = [line for line in path.read_text(encoding="utf-8").splitlines() if test.search(line)]
        # Rows of tables have columns `cif`, which is no language.
        assert [line for line in found if "row.items()" not in line] == [], name


def test_prompts_are_the_published_ones() -> None:
    cif = language.get_language("cif")
    assert cif.text(cif.prompt()) == "data_"
    assert cif.text(cif.prompt(ROCKSALT)) == "data_Na4Cl4\n"
    assert cif.text(cif.prompt(ROCKSALT, 225)) == PROPERTIES


def test_prompts_are_beginnings_of_the_published_texts() -> None:
    cif = language.get_language("cif")
    with gzip.open(Path(__file__).parent / "golden" / "texts.jsonl.gz", "rt", encoding="utf-8") as file:
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


def test_what_cannot_be_said_is_refused() -> None:
    cif = language.get_language("cif")
    with pytest.raises(InputError, match="Po"):
        cif.prompt((("Po", 1),))
    with pytest.raises(InputError, match="without a formula"):
        cif.prompt(None, 225)
    with pytest.raises(InputError, match="no language 'xyz'"):
        language.get_language("xyz")


def test_any_beginning_of_a_text_is_a_prompt() -> None:
    cif = language.get_language("cif")
    for stop in range(len(PROPERTIES)):
        ids = cif.ids(PROPERTIES[:stop])
        assert all(0 <= i <= tokenizer.UNKNOWN for i in ids)
