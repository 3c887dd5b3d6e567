"""Well-known compounds: what counts as a success and as a match, our own set, and the command."""

from __future__ import annotations

import csv
import math
from collections import Counter
from importlib.resources import files

import pytest
from pymatgen.core import Composition, Lattice, Structure

from crystallm.benchmarks import known_compounds
from crystallm.benchmarks.known_compounds import Compound, evaluate, read_compounds
from crystallm.cif import writer as cif_writer
from crystallm.errors import CrystallmError, InputError
from crystallm.generation.generate import generate

OWN = files("crystallm.benchmarks") / "data" / "well_known.csv"


def text_of(structure: Structure) -> str:
    return cif_writer.to_cif(cif_writer.to_text(structure))


@pytest.fixture(scope="module")
def book(textbook_structures) -> list[Compound]:
    seen = {"rocksalt": True, "rutile": False, "wurtzite": False}
    return [Compound(name, textbook_structures[name], name, seen[name]) for name in seen]


@pytest.mark.usefixtures("kept")
def test_what_counts_for_whom(book, textbook_structures):
    rock_salt, rutile = (textbook_structures[name] for name in ("rocksalt", "rutile"))
    # What others wrote: in P1, from another origin, in the primitive cell.
    moved = rutile.copy()
    moved.translate_sites(list(range(6)), [0.2, 0.3, 0.4])
    # ZnS as rock salt, sound, and another crystal than wurtzite.
    false = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.2), ["Zn", "S"], [[0] * 3, [0.5] * 3])
    # Within the looser tolerances alone: at equal volume, c is 27 % longer.
    stretched = rutile.copy()
    stretched.lattice = Lattice.tetragonal(4.594 / 1.27**0.5, 2.958 * 1.27)
    result = evaluate(
        book,
        {
            "rocksalt": [
                "no CIF",
                None,
                text_of(rock_salt),
                rock_salt.get_primitive_structure().to(fmt="cif"),
            ],
            "rutile": [text_of(stretched), moved.to(fmt="cif")],
            "wurtzite": [text_of(false)],
        },
    )
    salt, oxide, sulfide = result.rows
    assert [row.compound.id for row in result.rows] == ["rocksalt", "rutile", "wurtzite"]
    assert (salt.n, salt.n_valid, salt.first_match, salt.first_loose, salt.likeliest) == (4, 2, 3, 3, "Fm-3m")
    assert salt.rms == pytest.approx(0, abs=1e-4)
    assert (oxide.n, oxide.first_match, oxide.first_loose, oxide.likeliest) == (2, 2, 1, "P4_2/mnm")
    assert (sulfide.n_valid, sulfide.first_match, sulfide.rms) == (1, None, None)
    assert sulfide.likeliest == "Fm-3m"
    everything = result.shares()
    assert (everything.n, everything.success) == (3, 1.0)
    assert everything.match == everything.loose == pytest.approx(2 / 3)
    assert result.shares(seen=True) == known_compounds.CompoundShares(1, 1.0, 1.0, 1.0)
    assert result.shares(seen=False) == known_compounds.CompoundShares(2, 1.0, 0.5, 0.5)


def test_a_compound_without_samples_counts_as_not_found(book):
    result = evaluate(book, {})
    assert result.shares() == known_compounds.CompoundShares(3, 0.0, 0.0, 0.0)
    assert {(row.n, row.n_valid, row.rms, row.likeliest) for row in result.rows} == {(0, 0, None, None)}


def test_no_compounds_have_no_shares(textbook_structures):
    result = evaluate([Compound("a", textbook_structures["diamond"])], {})
    shares = result.shares(seen=True)
    assert shares.n == 0
    assert math.isnan(shares.match)


@pytest.mark.usefixtures("kept")
def test_crystals_of_a_model_are_judged_and_the_likeliest_valid_one_names_its_group(book, parrot):
    crystals = generate("ZnS", z=2, n=6, model=parrot, seed=0, temperature=1.5)
    (row,) = evaluate([book[2]], {"wurtzite": crystals}).rows
    valid = [crystal for crystal in crystals if crystal.validity.valid]
    assert row.n_valid == len(valid) > 0
    assert row.likeliest == max(valid, key=lambda crystal: crystal.log_likelihood).space_group
    assert row.first_loose is not None
    assert row.first_match is None or row.first_loose <= row.first_match


def test_a_comparison_that_takes_too_long_is_no_match(book):
    text = text_of(book[0].structure)
    (row,) = evaluate(book[:1], {"rocksalt": [text]}, seconds=1e-4).rows
    assert (row.n, row.n_valid, row.first_match) == (1, 0, None)


def test_what_was_asked_wrongly_is_said(book):
    with pytest.raises(InputError, match="no known compound"):
        evaluate([], {})
    with pytest.raises(InputError, match="two compounds have the id 'rutile': rename one"):
        evaluate([book[1], book[1]], {})
    with pytest.raises(InputError, match="crystals for 'halite', which is no id of the 3 compounds"):
        evaluate(book, {"halite": []})


def test_our_own_set_is_of_70_compounds_each_of_which_says_where_it_is_from():
    with OWN.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    compounds = read_compounds()
    assert len(compounds) == len(rows) == 70
    assert len({Composition(row["formula"]).reduced_formula for row in rows}) == 70
    assert len({row["id"] for row in rows}) == 70
    assert {row["license"] for row in rows} <= {"CC-BY-4.0", "CC0-1.0", "MIT", "AMCSD (cite)"}
    assert all(row["source"] and row["name"] for row in rows)
    for row, compound in zip(rows, compounds, strict=True):
        assert compound.structure.composition.reduced_formula == Composition(row["formula"]).reduced_formula
        assert (compound.id, compound.name, compound.seen) == (row["id"], row["name"], None)
        assert compound.space_group == row["space_group"], compound
    assert len({row["space_group"] for row in rows}) > 30
    assert len(OWN.read_bytes()) < 150_000


def test_every_compound_of_it_can_be_asked_for():
    from crystallm.benchmarks.reference_sets import requests_for

    structures = [compound.structure for compound in read_compounds()]
    for with_group in (False, True):
        requests = requests_for(structures, 1, with_group=with_group, context=1024)
        assert None not in requests
        assert max(sum(Composition(r.formula).values()) for r in requests if r is not None) <= 60


@pytest.fixture
def shelf(tmp_path, textbook_structures):
    """The textbook as a folder of CIFs and as a table."""
    (tmp_path / "cifs").mkdir()
    with (tmp_path / "book.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "name", "seen", "cif"])
        for name, structure in textbook_structures.items():
            (tmp_path / "cifs" / f"{name}.cif").write_text(structure.to(fmt="cif"))
            seen = {"rutile": "false", "diamond": ""}.get(name, "True")
            writer.writerow([name, f"{name} [book]", seen, structure.to(fmt="cif")])
    return tmp_path


def test_known_crystals_come_from_a_table_or_a_folder(shelf, textbook_structures):
    table = read_compounds(shelf / "book.csv")
    assert {entry.id: entry.seen for entry in table} == {
        "rocksalt": True, "rutile": False, "perovskite": True, "wurtzite": True, "diamond": None,
    }  # fmt: skip
    assert table[1].name == "rutile [book]"
    folder = read_compounds(shelf / "cifs")
    assert [entry.id for entry in folder] == sorted(textbook_structures)
    assert Counter(entry.formula for entry in folder) == Counter(entry.formula for entry in table)
    assert {entry.seen for entry in folder} == {None}


def test_a_table_that_is_none_is_said_with_its_row(shelf):
    (shelf / "odd.csv").write_text("id,seen,cif\nfirst,perhaps,data_\n")
    with pytest.raises(InputError, match="odd.csv', row 0: seen = 'perhaps': write true or false"):
        read_compounds(shelf / "odd.csv")
    (shelf / "noise.csv").write_text("id,cif\nfirst,noise\n")
    with pytest.raises(CrystallmError, match="first is not a structure"):
        read_compounds(shelf / "noise.csv")
    (shelf / "bare.csv").write_text("id,cif\n")
    with pytest.raises(InputError, match="holds no row"):
        read_compounds(shelf / "bare.csv")
    with pytest.raises(InputError, match="nowhere"):
        read_compounds(shelf / "nowhere")
