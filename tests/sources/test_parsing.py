"""One crystal of a collection: what it says is taken, and what is none is said in one line."""

from __future__ import annotations

import json
import warnings

import pytest

from crystallm.cif.structure_reader import Reading
from crystallm.errors import CrystallmError, InputError, TextError
from crystallm.sources import collection, parsing
from crystallm.sources.entry import Entry

# -- one crystal ---------------------------------------------------------------------------------------------

CELL = [[3, 0, 0], [0, 3, 0], [0, 0, 3]]


def dict_of(**changes):
    """A dict of pymatgen's with half an atom of iron."""
    site = {"species": [{"element": "Fe2+", "occu": 0.5}], "abc": [0, 0, 0], "properties": {"magmom": 5}}
    return json.dumps({"lattice": {"matrix": CELL}, "sites": [site | changes.pop("site", {})]} | changes)


def optimade_of(**changes):
    kind = {"name": "M", "chemical_symbols": ["Fe", "Co"], "concentration": [0.5, 0.25]}
    return json.dumps(
        {
            "lattice_vectors": CELL,
            "cartesian_site_positions": [[0, 0, 1.5]],
            "species_at_sites": ["M"],
            "species": [kind | changes.pop("kind", {})],
        }
        | changes
    )


def test_shares_of_sites_survive_and_charges_do_not(textbook_structures):
    found = parsing.structure(dict_of(), "pymatgen")
    assert found[0].species.as_dict() == {"Fe": 0.5}
    assert not found.site_properties
    assert not found.is_ordered
    cartesian = {"abc": None, "xyz": [0, 0, 1.5]}
    assert parsing.structure(dict_of(site=cartesian), "pymatgen")[0].frac_coords[2] == pytest.approx(0.5)
    cell = {"a": 3, "b": 4, "c": 5, "alpha": 90, "beta": 90, "gamma": 90}
    assert parsing.structure(dict_of(lattice=cell), "pymatgen").volume == pytest.approx(60)
    found = parsing.structure(optimade_of(), "optimade")
    assert found[0].species.as_dict() == {"Fe": 0.5, "Co": 0.25}
    text = parsing.to_cif(found)
    assert parsing.structure(text)[0].species.as_dict() == pytest.approx({"Fe": 0.5, "Co": 0.25})
    charged = textbook_structures["rocksalt"].copy()
    charged.add_oxidation_state_by_element({"Na": 1, "Cl": -1})
    charged.add_site_property("magmom", [1.0] * 8)
    for form in ("cif", "poscar"):
        found = parsing.structure(charged.to(fmt=form), form)
        assert found.composition.as_dict() == {"Na": 4, "Cl": 4}
        assert not found.site_properties


@pytest.mark.parametrize(
    ("text", "form", "message"),
    [
        ("", "cif", ""),
        ("data_x\n", "cif", ""),
        ("x", "poscar", ""),
        ("x\n1\n3 0 0\n0 3 0\n0 0 3\nPo\n900000000000\nDirect\n0 0 0\n", "poscar", "fewer lines than atoms"),
        ("x\n1\n3 0 0\n0 3 0\n0 0 3\n1\nDirect\n0 0 0\n", "poscar", "not named"),
        ("[]", "pymatgen", "no JSON object"),
        ("[" * 100_000, "pymatgen", "nested too deep"),
        ("{}", "pymatgen", "no lattice"),
        (dict_of(lattice={}), "pymatgen", "neither a matrix"),
        (dict_of(lattice={"matrix": [[3, 0, 0]] * 3}), "pymatgen", "no volume"),
        (dict_of(sites=[]), "pymatgen", "0 atoms"),
        (dict_of(site={"species": [{"element": "Xx"}]}), "pymatgen", "'Xx' is not an element"),
        (dict_of(site={"species": [{"element": "Fe", "occu": -1}]}), "pymatgen", "no share"),
        (dict_of(site={"species": []}), "pymatgen", "no element"),
        (dict_of(site={"abc": [0, 0, float("nan")]}), "pymatgen", "three numbers"),
        (dict_of(site={"abc": [0, 0]}), "pymatgen", "three numbers"),
        (optimade_of(kind={"chemical_symbols": ["Fe", "X"]}), "optimade", "'X'"),
        (optimade_of(kind={"chemical_symbols": ["Fe", "vacancy"]}), "optimade", "vacancy"),
        (optimade_of(kind={"attached": ["H"]}), "optimade", "attached"),
        (optimade_of(dimension_types=[1, 1, 0]), "optimade", "not periodic"),
        (optimade_of(lattice_vectors=[CELL[0], CELL[1], [None] * 3]), "optimade", "no cell"),
        (optimade_of(species_at_sites=["Q"]), "optimade", "'Q' of a site is not in its list of species"),
        (optimade_of(cartesian_site_positions=[]), "optimade", "0 positions for 1 atoms"),
        ('1\nLattice="3 0 0"\nPo 0 0 0\n', "extxyz", ""),
        ("1\n\nPo 0 0 0\n", "extxyz", "no cell"),
        ('1\nLattice="3 0 0 0 3 0 0 0 3" Properties=pos:R:30550000\nPo 0 0 0\n', "extxyz", "no columns"),
        ('1\nLattice="3 0 0 0 3 0 0 0 3" pbc="T T F"\nPo 0 0 0\n', "extxyz", "not periodic"),
        ('{"numbers": [0], "positions": [[0,0,0]], "cell": [[3,0,0],[0,3,0],[0,0,3]]}', "ase", "0 is not"),
        ('{"numbers": [1], "positions": [[0,0,0]], "cell": [[0,0,0],[0,0,0],[0,0,0]]}', "ase", "no volume"),
    ],
)
def test_what_is_no_crystal_is_one_line(text, form, message):
    with pytest.raises(CrystallmError) as caught:
        parsing.structure(text, form)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    entry = collection.as_cif(Entry("x", text, format=form))
    assert form == "cif" or (entry.text is None and entry.problem)


def test_an_unknown_format_is_one_line():
    with pytest.raises(InputError, match="give one of cif, poscar"):
        parsing.structure("x", "pdb")


def test_what_a_library_warns_of_is_a_note(monkeypatch):
    def doubtful(text):
        warnings.warn(f"{text} is odd", UserWarning, stacklevel=1)
        return Reading(None, ("a note",))

    monkeypatch.setitem(parsing._PARSERS, "cif", doubtful)
    assert parsing.read("this").notes == ("a note", "this is odd")


def test_standard_texts_stand_for_their_group(textbook_structures):
    from crystallm.cif import writer

    text = writer.to_text(textbook_structures["rutile"])
    assert len(parsing.structure(text)) == 6
    with pytest.raises(TextError):
        parsing.structure("{}")
