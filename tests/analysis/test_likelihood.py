"""Log-likelihoods of given crystals."""

from __future__ import annotations

import csv
import json
import math

import pytest
import torch
from pyarrow import parquet

from crystallm import language
from crystallm.analysis import likelihood
from crystallm.cif import tokenizer
from crystallm.cli import app
from crystallm.errors import InputError
from crystallm.models.load import load_model
from crystallm.models.model import Model
from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT
from crystallm.sampling import sample as sampling_sample
from crystallm.sampling import sequence
from crystallm.sources import collection
from real_crystals import published


def untrained(name, context=1024):
    torch.manual_seed(3)
    tongue = language.get_language(name)
    config = ModelConfig(
        language=name, vocab_size=len(tongue.vocabulary()), context=context, n_layer=1, n_head=2, n_embd=16
    )
    network = GPT(config).eval()
    with torch.no_grad():
        network.transformer.wte.weight.mul_(20)  # far from even probabilities
    return Model("untrained", network, tongue, config)


@pytest.mark.parametrize("name", ["orbits", "cif"])
def test_scores_are_those_that_sampling_tells_and_do_not_depend_on_the_batch(name, textbook_structures):
    model = untrained(name)
    texts = [model.language.encode(s) for s in textbook_structures.values()]
    together = likelihood.score(model, texts)
    for ids, found in zip(texts, together, strict=True):
        (alone,) = likelihood.score(model, [ids])
        assert alone.nats == pytest.approx(found.nats, rel=1e-5)
        assert sum(nats for nats, _ in found.parts.values()) == pytest.approx(found.nats)
        assert sum(n for _, n in found.parts.values()) == found.n_tokens == len(ids) - 1
    # The sampler writes a text with forced tokens: the log-likelihood it tells is of the same text.
    (sample,) = sampling_sample.sample(
        model.network,
        [texts[1][:1]],
        stop=sequence.Stop(model.language.end_ids),
        grammar=_Forced(texts[1]),
    )
    assert list(sample.ids) == texts[1]
    assert -sample.log_likelihood == pytest.approx(together[1].nats, rel=1e-4)


class _Forced:
    """Rules that leave one text."""

    def __init__(self, ids):
        self.ids = list(ids)

    def start(self, prompt):
        left = self.ids[len(prompt) :]

        class State:
            def allowed(self):
                return left[:1]

            def advance(self, token):
                left.pop(0)

        return State()


def test_what_was_learned_is_likelier_than_what_was_not(parrot, textbook_structures):
    model = load_model(parrot)
    known = textbook_structures["rutile"]
    strange = known.copy()
    strange.scale_lattice(2 * known.volume)
    encoded = [model.language.encode(s) for s in (known, strange)]
    one, other = likelihood.score(model, encoded)
    assert one.nats < other.nats - 2
    # It is the cell that is strange, and nothing before it.
    for part in ("composition", "space_group", "orbits"):
        assert one.parts[part] == pytest.approx(other.parts[part], abs=1e-4)
    assert one.parts["cell"][0] < other.parts["cell"][0] - 2
    assert one.perplexity == pytest.approx(math.exp(one.nats / one.n_tokens))


def test_what_has_no_text_has_a_reason(parrot, tmp_path, textbook_structures):
    (tmp_path / "c").mkdir()
    textbook_structures["rutile"].to(filename=str(tmp_path / "c" / "rutile.cif"))
    textbook_structures["perovskite"].to(filename=str(tmp_path / "c" / "perovskite.cif"))
    (tmp_path / "c" / "torn.cif").write_text("data_\n_cell_length_a 3\n")
    rows = {row["id"]: row for row in likelihood.rows(load_model(parrot), collection.read(tmp_path / "c"))}
    assert (rows["rutile"]["formula"], rows["rutile"]["space_group"]) == ("Ti2O4", "P4_2/mnm")
    assert rows["perovskite"]["formula"] == "SrTiO3"
    assert rows["torn"]["nats"] is None
    assert rows["torn"]["reason"]
    small = untrained("orbits", context=8)
    (row,) = likelihood.rows(small, collection.read(tmp_path / "c" / "rutile.cif"))
    assert row["reason"].endswith("tokens are more than the context of 8")
    with pytest.raises(InputError, match="reads 2 to 8"):
        likelihood.score(small, [[0] * 9])


def test_the_command_writes_a_table_and_a_file(parrot, tmp_path, textbook_structures, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c").mkdir()
    for name in ("rutile", "rocksalt"):
        textbook_structures[name].to(filename=str(tmp_path / "c" / f"{name}.cif"))
    (tmp_path / "c" / "torn.cif").write_text("data_\n_cell_length_a 3\n")
    assert app.run(["score", "c", "--model", str(parrot), "--out", "s.csv"]) == 0
    out = capsys.readouterr().out
    assert "3 crystals, 2 scored" in out
    assert any(line.split()[:3] == ["rutile", "Ti2O4", "P4_2/mnm"] for line in out.splitlines())
    assert any(line.startswith("torn: it has a cell and no atoms") for line in out.splitlines())
    with (tmp_path / "s.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(likelihood.COLUMNS)
    assert [row["id"] for row in rows] == ["rocksalt", "rutile", "torn"]
    assert app.run(["score", "c", "--model", str(parrot), "--out", "s.parquet", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert parquet.read_table("s.parquet").to_pylist() == told
    assert float(rows[0]["nats"]) == pytest.approx(told[0]["nats"])
    for more, said in (
        ([], "no crystals"),
        (["c", "--out", "s.txt"], "ends in .csv or .parquet"),
        (["c", "--symprec", "0"], "symprec = '0': input should be greater than 0"),
        (["nowhere"], "no file or folder 'nowhere'"),
    ):
        assert app.run(["score", *more]) == 2
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1


@pytest.fixture(scope="module")
def book(textbook_structures):
    return {name: language.get_language("orbits").encode(s) for name, s in textbook_structures.items()}


def told_in_parts(tongue, ids):
    """The tokens of each part, as a person reads them."""
    found = {part: [] for part in language.TOKEN_ROLES}
    for part, token in zip(tongue.token_roles(ids), ids, strict=True):
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
