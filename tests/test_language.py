"""The languages behind one protocol, on which all other modules depend."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from crystallm import language
from crystallm.errors import InputError, TextError


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
    """Which language it is matters to these alone; all others use members of the protocol."""
    source = Path(language.__file__).parent
    test = re.compile(
        r"""\.name\s*(?:==|!=|in)\s*[({\[]?["'](?:cif|orbits)["']"""
        r"""|language\.name\s*(?:==|!=|in\b)|\.get\(language\.name|\[language\.name\]"""
    )
    assert test.search('if model.language.name != "orbits":')
    assert test.search('if read.name == "cif" and found:')
    exempt = ("cif/", "orbits/", "grammar/", "language.py", "generation/completion.py")
    names = {path.relative_to(source).as_posix(): path for path in source.rglob("*.py")}
    others = {name: path for name, path in names.items() if not name.startswith(exempt)}
    assert [name for name, path in others.items() if test.search(path.read_text(encoding="utf-8"))] == []


def test_what_cannot_be_said_is_refused() -> None:
    cif = language.get_language("cif")
    with pytest.raises(InputError, match="Po"):
        cif.prompt((("Po", 1),))
    with pytest.raises(InputError, match="without a formula"):
        cif.prompt(None, 225)
    with pytest.raises(InputError, match="no language 'xyz'"):
        language.get_language("xyz")
