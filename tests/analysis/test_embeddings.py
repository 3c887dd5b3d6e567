"""The vectors of tokens, as the original tells them, and their map."""

from __future__ import annotations

import csv
import json
import struct

import numpy as np
import pytest
import torch
from pyarrow import parquet

from crystallm import language
from crystallm.analysis import embeddings
from crystallm.cif import tokenizer
from crystallm.cli import app
from crystallm.crystallography import elements
from crystallm.errors import InputError
from crystallm.models import load
from crystallm.models.model import Model
from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT


@pytest.fixture(scope="module", params=["cif", "orbits"])
def model(request):
    tongue = language.get_language(request.param)
    config = ModelConfig(
        language=tongue.name, vocab_size=len(tongue.vocabulary()), context=8, n_layer=1, n_head=2, n_embd=16
    )
    torch.manual_seed(0)
    return Model("random", GPT(config).eval(), tongue, config)


@pytest.mark.parametrize(
    ("of", "n", "first"), [("atoms", 89, "H"), ("digits", None, None), ("space-groups", None, "P1_sg")]
)
def test_each_name_has_the_vector_of_its_token(model, of, n, first):
    names, table = embeddings.vectors(model, of)
    expected = {"digits": {"cif": 10, "orbits": 100}, "space-groups": {"cif": 227, "orbits": 230}}
    assert len(names) == (n or expected[of][model.language.name])
    assert first in (None, names[0])
    vocabulary = model.language.vocabulary()
    weights = model.network.transformer.wte.weight.detach().numpy()
    for name, vector in zip(names, table, strict=True):
        in_ours = name if of != "space-groups" else f"({name.removesuffix('_sg')})"
        token = name if model.language.name == "cif" else in_ours
        assert np.allclose(vector, weights[vocabulary.index(token)])


def test_elements_stand_in_the_order_of_the_periodic_table_and_in_its_blocks():
    numbers = [elements.get(symbol).number for symbol in elements.symbols()]
    assert len(numbers) == 89
    blocks = dict(zip(elements.symbols(), embeddings.categories(elements.symbols(), "atoms"), strict=True))
    for block, symbols in (
        ("s block", "H He Li Mg K Ba"),
        ("p block", "B Ne Al Ar Ga Kr In Xe Tl Bi"),
        ("d block", "Sc Zn Y Cd Hf Hg"),
        ("f block", "La Ce Lu Th Pu"),
    ):
        assert {blocks[symbol] for symbol in symbols.split()} == {block}


def test_groups_are_told_by_their_crystal_system():
    names = ["P1_sg", "P2_1/c_sg", "Pnma_sg", "I4/mmm_sg", "R-3m_sg", "P6_3/mmc_sg", "Fm-3m_sg"]
    assert embeddings.categories(names, "space-groups") == [system for _, system in embeddings.SYSTEMS]


def test_the_map_keeps_what_lies_in_a_plane_and_does_not_depend_on_lengths():
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, 2 * np.pi, 12)
    plane = np.linalg.qr(rng.normal(size=(7, 2)))[0].T  # two axes at right angles in seven dimensions
    points = np.column_stack([np.cos(angles), np.sin(angles)]) @ plane
    found = embeddings.project(points * rng.uniform(1, 9, (12, 1)))

    def distances(x):
        return np.linalg.norm(x[:, None] - x[None], axis=2)

    assert np.allclose(distances(found), distances(points))
    assert np.allclose(found, embeddings.project(points))
    names = [str(i) for i in range(12)]
    near = embeddings.nearest(names, points, 1)
    apart = distances(points) + 9 * np.eye(12)
    assert [int(row[0]) for row in near] == apart.argmin(axis=1).tolist()


def test_a_model_that_read_crystals_puts_like_elements_together():
    names, table = embeddings.vectors(load.load_model("default", device="cpu"), "atoms")
    near = dict(zip(names, embeddings.nearest(names, table, 3), strict=True))
    lanthanides = {
        "La",
        "Ce",
        "Pr",
        "Nd",
        "Pm",
        "Sm",
        "Eu",
        "Gd",
        "Tb",
        "Dy",
        "Ho",
        "Er",
        "Tm",
        "Yb",
        "Lu",
        "Y",
    }
    assert (
        sum(len(lanthanides & set(near[symbol])) for symbol in ("Pr", "Nd", "Sm", "Tb", "Dy", "Ho", "Er"))
        >= 18
    )
    assert {"K", "Cs"} & set(near["Rb"])


def test_the_command(tmp_path, monkeypatch, capsys, parrot):
    monkeypatch.chdir(tmp_path)
    asked = ["embeddings", str(parrot), "--of", "space-groups"]
    assert app.run([*asked, "--out", "g.csv", "--map", "g.png"]) == 0
    assert "g.png" in capsys.readouterr().out
    with (tmp_path / "g.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["element", *map(str, range(48))]
    assert len(rows) == 231
    content = (tmp_path / "g.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert struct.unpack(">I", content[16:20])[0] > 300
    assert app.run([*asked, "--out", "g.parquet", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(told[0]["nearest"]) == 3
    table = parquet.read_table("g.parquet").to_pylist()
    assert [row["element"] for row in table] == [row[0] for row in rows[1:]]
    assert float(rows[5][3]) == pytest.approx(table[4]["2"])
    for more, said in ((["--out", "g.txt"], ".csv or .parquet"), (["--map", "g.svg"], ".png")):
        assert app.run([*asked, *more]) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(InputError, match="of = 'words'"):
        embeddings.vectors(load.load_model(parrot), "words")
    assert tokenizer.space_groups()["Pm"]
