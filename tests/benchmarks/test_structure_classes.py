"""Structure classes: what is of a class and what only looks so, figures by hand, and the command."""

from __future__ import annotations

import csv
import json
import math
from functools import cache
from importlib.resources import files

import numpy as np
import pytest
from pymatgen.core import Composition, Lattice, Structure

from crystallm.analysis.prototypes import PROTOTYPES, classify
from crystallm.benchmarks.structure_classes import ClassReference, evaluate, read_references
from crystallm.cif import parser, writer
from crystallm.cli.app import run
from crystallm.errors import InputError
from real_crystals import published, told_otherwise

OWN = files("crystallm.benchmarks") / "data" / "classes.csv"
SKEW = [[1, 1, 0], [0, 1, 0], [0, 1, 1]]
DOUBLE = [[1, 0, 0], [0, 2, 0], [0, 0, 1]]
LEFT = [[0, 1, 0], [1, 0, 0], [0, 0, 1]]


def make(group: str, lattice: Lattice, species: str, coords: list[list[float]]) -> Structure:
    return Structure.from_spacegroup(group, lattice, species.split(), coords)


@cache
def examples() -> dict[str, tuple[Structure, tuple[str, ...]]]:
    """One compound a class, and its elements in the order of the roles.

    Lengths in Å and free coordinates are rounded from what is measured of rutile, spinel, elpasolite, Y2Ti2O7
    and SrTiO3.
    """
    corner, middle, eighth = [0, 0, 0], [0.5, 0.5, 0.5], [1 / 8] * 3
    y_ti_o = [middle, corner, [0.329, 1 / 8, 1 / 8], [3 / 8] * 3]
    return {
        "rutile": (
            make("P4_2/mnm", Lattice.tetragonal(4.594, 2.958), "Ti O", [corner, [0.306, 0.306, 0]]),
            ("Ti", "O"),
        ),
        "spinel": (
            make("Fd-3m:2", Lattice.cubic(8.08), "Mg Al O", [eighth, middle, [0.2624] * 3]),
            ("Mg", "Al", "O"),
        ),
        "elpasolite": (
            make("Fm-3m", Lattice.cubic(8.119), "K Na Al F", [[0.25] * 3, middle, corner, [0.219, 0, 0]]),
            ("K", "Na", "Al", "F"),
        ),
        "pyrochlore": (
            make("Fd-3m:2", Lattice.cubic(10.09), "Y Ti O O", y_ti_o),
            ("Y", "Ti", "O"),
        ),
        "perovskite": (
            make("Pm-3m", Lattice.cubic(3.905), "Sr Ti O", [middle, corner, [0.5, 0, 0]]),
            ("Sr", "Ti", "O"),
        ),
    }


@pytest.fixture(scope="module")
def crystals() -> dict[str, Structure]:
    return {name: structure for name, (structure, _) in examples().items()}


# -- detection -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROTOTYPES)
@pytest.mark.parametrize("cell", [SKEW, DOUBLE, LEFT], ids=["skew", "double", "left-handed"])
def test_a_class_is_seen_however_the_crystal_is_told(name, cell):
    crystal, placed = examples()[name]
    for told in (
        crystal,
        crystal.get_primitive_structure(),
        told_otherwise(crystal, np.random.default_rng(1), cell),
    ):
        found = classify(told)
        assert found is not None
        assert (found.name, found.elements) == (name, placed)
        assert (found.a, found.c) == pytest.approx((crystal.lattice.a, crystal.lattice.c), abs=1e-4)
        assert Composition(found.formula).reduced_formula == crystal.composition.reduced_formula


@pytest.mark.parametrize("name", PROTOTYPES)
def test_small_displacements_and_other_sizes_are_of_the_class_and_large_ones_not(name, crystals):
    slightly, strongly, larger = (crystals[name].copy() for _ in range(3))
    slightly.perturb(0.01, seed=1)
    strongly.perturb(0.4, seed=1)
    larger.scale_lattice(1.4 * larger.volume)
    assert classify(slightly).name == name
    assert classify(strongly) is None
    assert classify(larger).name == name


@pytest.mark.parametrize("name", PROTOTYPES)
def test_a_strained_cell_is_of_another_group(name, crystals):
    strained = crystals[name].copy()
    strained.apply_strain([0.06, 0, -0.04])
    assert classify(strained) is None


@pytest.mark.parametrize("name", PROTOTYPES)
def test_cations_and_anions_in_each_others_places_are_no_class(name, crystals):
    # Antirutiles and antiperovskites such as Sr3SnO are types of their own.
    swapped = crystals[name].copy()
    anion = {"elpasolite": "F"}.get(name, "O")
    cation = {"rutile": "Ti", "spinel": "Al", "elpasolite": "K", "pyrochlore": "Y", "perovskite": "Ti"}[name]
    swapped.replace_species({anion: cation, cation: anion})
    assert classify(swapped) is None


def test_the_two_cations_of_a_perovskite_and_a_pyrochlore_are_told_apart(crystals):
    for name, pair in (("perovskite", ("Sr", "Ti")), ("pyrochlore", ("Y", "Ti"))):
        swapped = crystals[name].copy()
        swapped.replace_species({pair[0]: pair[1], pair[1]: pair[0]})
        found = classify(swapped)
        assert found is not None
        assert found.elements[:2] == (pair[1], pair[0])


def test_right_positions_with_wrong_coordinates_are_no_class():
    # Molecules of SeI2 in the group of rutile, and an elpasolite whose halide sits by one cation.
    cell = Lattice.tetragonal(8.0, 3.72)
    assert classify(make("P4_2/mnm", cell, "Se I", [[0, 0, 0], [0.235, 0.235, 0]])) is None
    sites = [[0.25] * 3, [0.5] * 3, [0] * 3, [0.15, 0, 0]]
    assert classify(make("Fm-3m", Lattice.cubic(9), "K Na Al F", sites)) is None


def test_other_compositions_metals_and_elements_beyond_the_languages_are_no_class(textbook_structures):
    for name in ("rocksalt", "wurtzite", "diamond"):
        assert classify(textbook_structures[name]) is None
    carbide = [[0.5] * 3, [0] * 3, [0.5, 0, 0]]
    assert classify(make("Pm-3m", Lattice.cubic(4.1), "Sc B Rh", carbide)) is None
    assert classify(make("Pm-3m", Lattice.cubic(4.1), "Po Ti O", carbide)) is None
    shared = Structure(Lattice.cubic(4), [{"Sr": 0.5, "Ba": 0.5}, "Ti"], [[0] * 3, [0.5] * 3])
    assert classify(shared) is None


def test_freak_cells_are_no_class():
    for lattice in (Lattice.orthorhombic(1e-4, 1e-4, 5), Lattice.from_parameters(900, 2, 2, 11, 11, 11)):
        coords = np.random.default_rng(1).random((6, 3))
        assert classify(Structure(lattice, ["Ti"] * 2 + ["O"] * 4, coords)) is None


def test_of_real_crystals_few_are_of_a_class_and_none_of_another_group():
    groups = {prototype.space_group for prototype in PROTOTYPES.values()}
    kept = [row for i, row in enumerate(published()) if i % 20 == 0 or number_of(row["text"]) in groups]
    found = []
    for row in kept:
        member = classify(Structure.from_str(row["cif"], fmt="cif"))
        if member is not None:
            name = member.name
            assert number_of(row["text"]) == PROTOTYPES[name].space_group
            found.append(name)
    assert 0 < len(found) < len(kept) / 2


def number_of(text: str) -> int:
    return parser.parse(text).space_group_number


# -- figures -------------------------------------------------------------------------------------------------


def scaled(crystal: Structure, a: float) -> Structure:
    """The crystal with that a (Å), its shape kept."""
    larger = crystal.copy()
    larger.scale_lattice(crystal.volume * (a / crystal.lattice.a) ** 3)
    return larger


def test_figures_are_those_worked_out_by_hand(crystals):
    rutile, perovskite = crystals["rutile"], crystals["perovskite"]
    references = [
        ClassReference("TiO2", "rutile", 4.5, 3.0, split="train"),
        ClassReference("SnO2", "rutile", 4.7, 3.2, split="test"),
        ClassReference("SrTiO3", "perovskite", 4.0, split="val"),
        ClassReference("BaTiO3", "perovskite", 4.0, split="train"),
        ClassReference("CaTiO3", "perovskite", 3.8, split="train"),
    ]
    tin = rutile.copy()
    tin.replace_species({"Ti": "Sn"})
    barium = perovskite.copy()
    barium.replace_species({"Sr": "Ba"})
    swapped = perovskite.copy()
    swapped.replace_species({"Sr": "Ti", "Ti": "Ca"})
    result = evaluate(
        references,
        {
            "TiO2": [rutile],
            "SnO2": [scaled(tin, 4.7), scaled(tin, 4.9), None, "no CIF", rutile],  # mean a = 4.8
            "SrTiO3": [writer.to_text(scaled(perovskite, 4.1))],
            "BaTiO3": [scaled(barium, 4.1)],
            "CaTiO3": [swapped, perovskite],  # Ca in Ti's place, and another compound: not found
        },
    )
    assert [(row.n, row.n_found) for row in result.rows] == [(1, 1), (5, 2), (1, 1), (1, 1), (2, 0)]
    scores = result.scores()
    ratio = 2.958 / 4.594
    tin_c = 4.8 * ratio
    assert scores["rutile"].n == 2
    assert scores["rutile"].found == 1.0
    assert scores["rutile"].mae == pytest.approx(
        {"a": (0.094 + 0.1) / 2, "c": (0.042 + abs(tin_c - 3.2)) / 2}, abs=1e-4
    )
    # Known a: 4.5 and 4.7, mean 4.6.
    assert scores["rutile"].r2["a"] == pytest.approx(1 - (0.094**2 + 0.1**2) / (2 * 0.1**2), abs=1e-3)
    assert (scores["perovskite"].n, scores["perovskite"].found) == (3, pytest.approx(2 / 3))
    assert scores["perovskite"].mae["a"] == pytest.approx(0.1, abs=1e-3)
    assert math.isnan(scores["perovskite"].r2["a"])  # both known cells are equal: nothing to explain
    unseen = result.scores(unseen=True)
    assert {name: score.n for name, score in unseen.items()} == {"rutile": 1, "perovskite": 1}
    assert unseen["rutile"].mae["a"] == pytest.approx(0.1, abs=1e-4)
    assert math.isnan(unseen["rutile"].r2["a"])


def test_what_was_not_found_has_no_figures():
    result = evaluate([ClassReference("TiO2", "rutile", 4.6, 3.0)], {})
    (score,) = result.scores().values()
    assert (score.n, score.found) == (1, 0.0)
    assert math.isnan(score.mae["a"])
    assert math.isnan(score.r2["c"])
    assert result.scores(unseen=True) == {}


def test_what_was_asked_wrongly_is_said():
    titania = ClassReference("TiO2", "rutile", 4.6, 3.0)
    with pytest.raises(InputError, match="no formula"):
        evaluate([], {})
    with pytest.raises(InputError, match="'TiO2' occurs twice"):
        evaluate([titania, titania], {})
    with pytest.raises(InputError, match="crystals for 'SnO2', which is none of the 1"):
        evaluate([titania], {"SnO2": []})
    with pytest.raises(InputError, match="no class 'quartz': there are rutile"):
        evaluate([ClassReference("SiO2", "quartz", 4.9)], {})


# -- our own compounds ---------------------------------------------------------------------------------------


def test_our_own_compounds_are_of_their_classes_and_say_where_they_are_from():
    with OWN.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    references = read_references()
    assert {reference.name for reference in references} == set(PROTOTYPES)
    assert len(references) == len(rows)
    assert len({reference.formula for reference in references}) == len(references)
    assert len({Composition(reference.formula).reduced_formula for reference in references}) == len(rows)
    assert {row["license"] for row in rows} <= {"CC-BY-4.0", "CC0-1.0", "MIT", "AMCSD (cite)"}
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    assert all(row["id"] and row["source"] for row in rows)
    for reference in references:
        assert 3 < reference.a < 14, reference
        assert (reference.c is not None) == (reference.name == "rutile")
    assert all(any(r.unseen for r in references if r.name == name) for name in PROTOTYPES)


def test_some_of_them_can_be_taken():
    few = read_references(classes=["spinel", "rutile"], limit=3)
    assert [reference.name for reference in few] == ["rutile"] * 3 + ["spinel"] * 3
    assert all(reference.unseen for reference in read_references(unseen=True))
    assert len(read_references(classes=["pyrochlore"], limit=1000)) < 60


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("formula,a\n", "no column 'class'"),
        ("formula,class,a\nTiO2,quartz,4.6\n", "line 2: no class 'quartz'"),
        ("formula,class,a\nSrTiO3,perovskite,wide\n", "a = 'wide': write the length in Å"),
        ("formula,class,a,c\nTiO2,rutile,4.6,\n", "c = '': write the length in Å"),
        ("formula,class,a\nO3SrTi,perovskite,3.9\n", "'O3SrTi' is not a perovskite: write ABX3"),
        ("formula,class,a\nXy2,rutile,3.9\n", "line 2:"),
        ("formula,class,a\n", "has no formula"),
    ],
)
def test_a_file_that_is_none_is_said_with_its_line(tmp_path, content, says):
    (tmp_path / "own.csv").write_text(content)
    with pytest.raises(InputError) as error:
        read_references(tmp_path / "own.csv")
    assert says in str(error.value)


# -- the command ---------------------------------------------------------------------------------------------


def command(*words: object) -> int:
    return run(["benchmark", *map(str, words)])


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text(
        "formula,class,a,c,split\nTiO2,rutile,4.594,2.958,train\nSrTiO3,perovskite,4.005,,test\n"
        "BaTiO3,perovskite,4.0,,train\n"
    )
    return path


def test_a_model_that_knows_the_book_knows_its_classes(own, parrot, capsys, tmp_path):
    options = ("-n", 2, "--model", parrot, "--temperature", 0.01, "--device", "cpu")
    assert command("classes", own, *options, "--out", tmp_path / "scores.json") == 0
    out = capsys.readouterr().out
    kept = json.loads((tmp_path / "scores.json").read_text())
    assert kept["classes"]["all"]["rutile"]["found"] == 1.0
    assert kept["classes"]["all"]["rutile"]["mae"]["a"] < 0.05
    unseen = kept["classes"]["unseen"]["perovskite"]
    assert (unseen["n"], unseen["found"], unseen["r2"]["a"]) == (1, 1.0, None)
    assert unseen["mae"]["a"] == pytest.approx(0.1, abs=0.05)
    rows = {row["formula"]: row for row in kept["formulas"]}
    assert rows["SrTiO3"]["n_found"] == 2
    assert rows["SrTiO3"]["known"] == {"a": 4.005}
    assert "own.csv, 3 formulas, n = 2" in out
    assert "perovskite" in out


def test_one_class_as_json(own, parrot, capsys):
    options = ("--classes", "rutile", "-n", 1, "--model", parrot, "--device", "cpu", "--json")
    assert command("classes", own, *options) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["classes"]["all"].keys() == {"rutile"}
    assert summary["classes"]["unseen"] == {}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--classes", "rutile,quartz"), "no class 'quartz': there are rutile, spinel"),
        (("-n", 0), "n = '0': input should be greater than or equal to 1"),
        (("--limit", 0), "limit = '0': input should be greater than or equal to 1"),
        (("--constraints", "some"), "some"),
    ],
)
def test_bad_options_are_one_line(options, says, capsys):
    assert command("classes", *options) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
