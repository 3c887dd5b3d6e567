"""Crystals from a part of one."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure
from pymatgen.core.structure_matcher import StructureMatcher

import crystallm
from crystallm import language
from crystallm.cli import app
from crystallm.errors import InputError
from crystallm.generation import completion, template
from crystallm.generation.completion import CombinedCompletionGenerator, CompletionGenerator
from crystallm.generation.request import SamplingOptions
from crystallm.models.model import Model
from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT
from crystallm.orbits import description
from crystallm.orbits import language as orbits_language
from crystallm.references.library import Library
from crystallm.references.prototypes import member_of
from crystallm.sources import collection, parsing


@pytest.fixture(scope="module")
def guesser():
    """A network that knows nothing: what it writes is what the rules leave."""
    torch.manual_seed(0)
    tongue = language.get_language("orbits")
    config = ModelConfig(
        language="orbits", vocab_size=len(tongue.vocabulary()), context=256, n_layer=1, n_head=2, n_embd=16
    )
    return Model("guesser", GPT(config).eval(), tongue, config)


@pytest.fixture(scope="module")
def host():
    """A perovskite with a mobile frame: Pnma, so that cell and coordinates are free."""
    return Structure.from_spacegroup(
        "Pnma",
        Lattice.orthorhombic(5.44, 7.64, 5.38),
        ["Ca", "Ti", "O", "O"],
        [[0.035, 0.25, 0.993], [0, 0, 0.5], [0.484, 0.25, 0.071], [0.289, 0.037, 0.711]],
    )


def test_a_crystal_like_another_keeps_group_and_positions(kagome, guesser):
    tongue = language.get_language("orbits")
    ids = template.template_prompt(kagome, "YMn6Ge6", tongue)
    text = tongue.text(ids)
    assert text.startswith("<crystal> Y 1 Mn 6 Ge 6 (P6/mmm) Y 1")
    assert text.count("Ge 2") == 3
    found = crystallm.generate("YMn6Ge6", template=kagome, n=4, model=guesser, seed=1)
    for crystal in found:
        if not crystal.ended:
            continue
        told = orbits_language.from_ids(crystal.ids)
        before = description.describe(kagome)
        assert told.space_group == before.space_group
        assert sorted(orbit.label for orbit in told.orbits) == sorted(o.label for o in before.orbits)
        assert dict(told.composition) == {"Y": 1, "Mn": 6, "Ge": 6}
    assert sum(crystal.ended for crystal in found) >= 3


@pytest.mark.parametrize("removed", ["Ca", "O"])
def test_known_atoms_stay_where_they_are(host, guesser, removed):
    part = host.copy()
    part.remove_species([removed])
    known = completion.fixed_part(part, "CaTiO3")
    assert dict(known.composition) == {"Ca": 4, "Ti": 4, "O": 12}
    assert known.missing[removed] == {"Ca": 4, "O": 12}[removed]
    settings = SamplingOptions(seed=2)
    (found,) = CompletionGenerator(guesser, known, 6, settings).generate([0])
    assert sum(crystal.ended for crystal in found) >= 4
    for crystal in found:
        if not crystal.ended:
            continue
        whole = crystal.structure
        assert whole.composition == host.composition
        rest = whole.copy()
        rest.remove_species([removed])
        # The same crystal but for rounding: thousandths of an edge, 0.5 % of the volume.
        assert StructureMatcher(ltol=0.02, stol=0.02, angle_tol=0.2, scale=False).fit(rest, part)
        assert crystal.space_group_number == 62
        distances = whole.distance_matrix + 9 * np.eye(len(whole))
        assert distances.min() > 0.4


def test_guests_stand_among_known_atoms_of_their_own_kind(host, guesser):
    """An oxygen is missing: its position, like that of a known one, is of an element that is there."""
    part = host.copy()
    part.remove_sites([i for i, site in enumerate(host) if site.specie.symbol == "O"][:4])  # the 4c oxygen
    known = completion.fixed_part(part, "CaTiO3")
    assert known.missing == {"Ca": 0, "Ti": 0, "O": 4}
    (found,) = CompletionGenerator(guesser, known, 6, SamplingOptions(seed=3)).generate([0])
    ended = [crystal for crystal in found if crystal.ended]
    assert len(ended) >= 4
    for crystal in ended:
        told = orbits_language.from_ids(crystal.ids)
        assert sum(int(o.label[:-1]) for o in told.orbits if o.element == "O") == 12
        there = {(o.element, o.label, o.coordinates) for o in told.orbits}
        group = crystallm.crystallography.space_groups.get(62)
        for symbol, index, values in known.orbits:
            assert (symbol, group.wyckoff[index].label, values) in there


def test_orbits_alone_may_be_kept(host, guesser):
    part = host.copy()
    part.remove_species(["Ca"])
    known = completion.fixed_part(part, "CaTiO3", keep="orbits")
    assert known.cell is None
    (found,) = CompletionGenerator(guesser, known, 4, SamplingOptions(seed=4)).generate([0])
    cells = {crystal.structure.lattice.abc for crystal in found if crystal.ended}
    assert len(cells) > 1


@pytest.mark.parametrize(
    ("wanted", "z", "said"),
    [
        ("CaTiO3", None, "nothing is missing: the fixed part has all atoms of the formula$"),
        ("CaTiO3", 4, "all atoms of the formula$"),
        ("CaTiO3", 0, "z = 0 formula units"),
        ("SrTiO3", None, "has no Ca"),
        ("LiCaTiO3", 3, "1 atom of Ca more than the whole cell: Z = 4 is the smallest that works"),
        ("CaTiO4", 2, "2 atoms of Ca more than the whole cell: Z = 4 is the smallest"),
        ("CaTiO4", 5, "cannot be added.*no positions for them: Z = 4 is the smallest"),
        ("Ca4Ti4O13", None, "O cannot be added.*no positions for them: Z = 4 is the smallest that works"),
    ],
)
def test_parts_that_cannot_be_completed_are_refused(host, wanted, z, said):
    with pytest.raises(InputError, match=said):
        completion.fixed_part(host, wanted, z=z)


def test_models_of_the_published_language_are_refused(host):
    tongue = language.get_language("cif")
    config = ModelConfig(language="cif", vocab_size=371, context=64, n_layer=1, n_head=1, n_embd=8)
    model = Model("theirs", GPT(config).eval(), tongue, config)
    part = host.copy()
    part.remove_species(["Ca"])
    with pytest.raises(InputError, match="models of 'orbits'"):
        CompletionGenerator(model, completion.fixed_part(part, "CaTiO3"), 1, SamplingOptions())
    with pytest.raises(InputError, match="models of 'orbits'"):
        CombinedCompletionGenerator(
            model, pnma_library(), completion.fixed_part(part, "CaTiO3"), 1, SamplingOptions()
        )


def pnma(symbols, *, moved=0.0):
    """The host with other elements, its free coordinates moved, from another origin."""
    return Structure.from_spacegroup(
        "Pnma",
        Lattice.orthorhombic(5.6, 7.9, 5.5),
        [symbols[0], symbols[1], symbols[2], symbols[2]],
        [[0.035 + moved, 0.25, 0.993], [0, 0, 0.5], [0.484, 0.25, 0.071], [0.289 - moved, 0.037, 0.711]],
    )


@pytest.mark.parametrize("removed", ["Ca", "O"])
@pytest.mark.parametrize("shift", [(0, 0, 0), (0.5, 0, 0), (0, 0.5, 0.5)])
def test_a_known_crystal_gives_the_missing_atoms(host, removed, shift):
    """Fixed atoms and cell stay; the others stand where they do in the known crystal, whatever its origin."""
    part = host.copy()
    part.remove_species([removed])
    fixed = completion.fixed_part(part, "CaTiO3")
    known = pnma(("Ca", "Ti", "O"), moved=0.02)
    known.translate_sites(list(range(len(known))), shift)
    made = completion.completed_by(fixed, description.describe(known))
    whole = description.to_structure(made)
    assert StructureMatcher(scale=False).fit(whole, host)
    kept = whole.copy()
    kept.remove_species([removed])
    assert StructureMatcher(scale=False).get_rms_dist(kept, part)[0] < 0.002


def test_polar_crystals_meet_along_their_axis():
    def tetragonal(zs, shift=0.0):
        return Structure.from_spacegroup(
            "P4mm",
            Lattice.tetragonal(3.9, 4.1),
            ["Pb", "Ti", "O", "O"],
            [
                [0, 0, zs[0] + shift],
                [0.5, 0.5, zs[1] + shift],
                [0.5, 0.5, zs[2] + shift],
                [0.5, 0, zs[3] + shift],
            ],
        )

    whole = tetragonal((0, 0.54, 0.11, 0.62))
    part = whole.copy()
    part.remove_species(["Ti"])
    fixed = completion.fixed_part(part, "PbTiO3")
    made = completion.completed_by(fixed, description.describe(tetragonal((0, 0.53, 0.12, 0.61), 0.37)))
    assert StructureMatcher().fit(description.to_structure(made), whole)
    assert completion.completed_by(fixed, description.describe(tetragonal((0, 0.54, 0.11, 0.75)))) is None


def test_a_crystal_that_does_not_contain_the_part_gives_nothing(host):
    part = host.copy()
    part.remove_species(["O"])
    fixed = completion.fixed_part(part, "CaTiO3")
    assert completion.completed_by(fixed, description.describe(pnma(("Ti", "Ca", "O")))) is None
    assert completion.completed_by(fixed, description.describe(pnma(("Ca", "Ti", "O"), moved=0.09))) is None
    long = pnma(("Ca", "Ti", "O"))
    long.scale_lattice(long.volume)
    stretched = Structure(Lattice.orthorhombic(5.6, 11, 5.5), long.species, long.frac_coords)
    assert completion.completed_by(fixed, description.describe(stretched)) is None


def pnma_library():
    names = [("Sr", "Ti", "O"), ("Ca", "Zr", "O"), ("La", "Cr", "O")]
    return Library.of(
        ("".join(one), "lab", member_of(description.describe(pnma(one, moved=0.01)))) for one in names
    )


def test_half_of_the_crystals_are_of_known_ones(host, guesser):
    part = host.copy()
    part.remove_species(["Ca"])
    fixed = completion.fixed_part(part, "CaTiO3")
    both = CombinedCompletionGenerator(guesser, pnma_library(), fixed, 3, SamplingOptions())
    (crystals,) = both.generate([0])
    assert len(crystals) == 3
    assert crystals[0].source.relative.id in {"SrTiO", "CaZrO", "LaCrO"}
    assert crystals[-1].source.relative is None
    assert "Ca4 added" in both.note(0)
    for crystal in crystals:
        whole = orbits_language.from_ids(crystal.ids)
        assert dict(whole.composition) == {"Ca": 4, "Ti": 4, "O": 12}
        assert whole.cell == fixed.cell
    kept = completion.fixed_part(part, "CaTiO3", keep="orbits")
    (analogue,) = completion.known_completions(pnma_library(), kept)
    assert analogue.description.cell != fixed.cell
    assert 0 < analogue.probability <= 1


def test_one_crystal_of_a_known_one_needs_no_sample(host, guesser, monkeypatch):
    part = host.copy()
    part.remove_species(["Ca"])
    fixed = completion.fixed_part(part, "CaTiO3")
    monkeypatch.setattr(CompletionGenerator, "generate", None)
    both = CombinedCompletionGenerator(guesser, pnma_library(), fixed, 1, SamplingOptions())
    (crystals,) = both.generate([0])
    assert [crystal.source.relative.source for crystal in crystals] == ["lab"]


def test_the_commands(parrot, tmp_path, textbook_structures, kagome, monkeypatch, capsys):
    from crystallm.validity import checks

    monkeypatch.setattr(
        checks,
        "check_many",
        lambda texts, *, what="text", **_: [checks.check(text, what=what) for text in texts],
    )
    monkeypatch.chdir(tmp_path)
    part = textbook_structures["rutile"].copy()
    part.remove_species(["O"])
    part.to(filename="part.cif")
    textbook_structures["rocksalt"].to(filename="salt.cif")
    kagome.to(filename="kagome.cif")
    model = ["--model", str(parrot), "--seed", "1"]
    # Titanium alone has more symmetry than rutile: the group is that of the known part.
    asked = ["complete", "part.cif", "--formula", "TiO2", "-n", "3", "--out", "whole", *model]
    assert app.run(asked) == 0
    out = capsys.readouterr().out
    assert "O4 added" in out
    assert "3 crystals" in out
    for entry in collection.read("whole"):
        assert parsing.structure(entry.text, entry.format).composition.reduced_formula == "TiO2"
    assert app.run([*asked, "--quiet"]) == 0
    # What was asked is the crystal, not the name of its file.
    (tmp_path / "part.cif").rename("moved.cif")
    moved = ["moved.cif" if word == "part.cif" else word for word in asked]
    assert app.run([*moved, "--quiet"]) == 0
    part.scale_lattice(1.1 * part.volume)
    part.to(filename="part.cif")
    assert app.run([*asked, "--quiet"]) == 2
    assert "holds another run (part was" in capsys.readouterr().err
    assert app.run(["generate", "MgO", "--template", "salt.cif", "-n", "2", "--json", *model]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["formula"] for row in rows} == {"Mg4O4"}
    assert {row["space_group"] for row in rows} == {"Fm-3m"}
    (tmp_path / "begin.txt").write_text("<crystal> Na 4 Cl 4\n")
    assert app.run(["generate", "--prompt-file", "begin.txt", "-n", "1", "--json", *model]) == 0
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert row["formula"] == "Na4Cl4"
    for arguments, said in (
        (["complete"], "no crystal: name the file"),
        (["complete", "part.cif"], "no formula: give that of the whole crystal"),
        (["complete", "salt.cif", "--formula", "NaCl"], "nothing is missing"),
        (
            ["complete", "part.cif", "--formula", "TiO2", "--symprec", "0"],
            "symprec = '0': input should be greater than 0",
        ),
        (["generate", "YMn6Ge6", "--template", "salt.cif"], "other proportions than NaCl"),
        (["generate", "--template", "salt.cif"], "--template takes a formula"),
        (["generate", "NaCl", "--prompt-file", "begin.txt"], "--prompt-file and formula"),
        (["generate", "NaCl", "--z", "2", "--template", "salt.cif"], "not z"),
    ):
        assert app.run([*arguments, *model]) == 2, arguments
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
