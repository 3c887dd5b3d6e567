"""Structure classes: what is of a class and what only looks so, figures by hand, and the command."""

from __future__ import annotations

import csv
import math
from importlib.resources import files

import pytest
from pymatgen.core import Composition, Structure

from class_examples import examples
from crystallm.analysis.prototypes import PROTOTYPES
from crystallm.benchmarks.structure_classes import ClassReference, evaluate, read_references
from crystallm.cif import writer
from crystallm.errors import InputError

OWN = files("crystallm.benchmarks") / "data" / "classes.csv"


@pytest.fixture(scope="module")
def crystals() -> dict[str, Structure]:
    return {name: structure for name, (structure, _) in examples().items()}


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
