"""`prepare`, `train` and `benchmark` from end to end, on the crystals of a textbook."""

from __future__ import annotations

import csv
import json

import pytest
from pyarrow import parquet

from crystallm.cli import app

pytestmark = pytest.mark.usefixtures("kept", "undrawn")
RECIPE = """
n_layer: 1
n_head: 2
n_embd: 16
context: 128
dropout: 0.0
batch_tokens: 256
warmup: 1
dtype: float32
"""

DATA = ["--dataset", "data", "--out", "run"]


@pytest.fixture
def crystallm(capsys, monkeypatch, tmp_path, textbook_structures):
    """Runs a command in a folder that holds the textbook as a CSV file."""
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "book.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["material_id", "cif"])
        writer.writerows((name, structure.to(fmt="cif")) for name, structure in textbook_structures.items())
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def run(*arguments):
        code = app.run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_from_a_collection_to_weights_that_generate(crystallm, tmp_path):
    code, out, err = crystallm("prepare", "book.csv", "book.csv=val", "--out", "data", "--workers", 1)
    assert (code, err) == (0, "")
    assert "train" in out
    assert "10 of 10 rows" in out
    rows = parquet.read_table(tmp_path / "data" / "rows.parquet").to_pylist()
    assert {row["split"] for row in rows} == {"train", "val"}

    code, out, err = crystallm(
        "train",
        "recipe.yaml",
        "--dataset",
        "data",
        "--out",
        "run",
        "--max-updates",
        3,
        "--json",
        "--device",
        "cpu",
    )
    assert (code, err) == (0, "")
    assert json.loads(out)["update"] == 3
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["update"] == 3

    code, out, err = crystallm(
        "generate", "Na4Cl4", "-n", 2, "--model", "run/model", "--json", "--device", "cpu"
    )
    assert (code, err) == (0, "")
    assert {json.loads(line)["formula"] for line in out.splitlines()} <= {"Na4Cl4", None}


def test_crystals_told_in_equivalent_ways_teach(crystallm, tmp_path):
    prepare = ("prepare", "book.csv", "book.csv=val", "--out", "data", "--workers", 1)
    train = ("train", "recipe.yaml", *DATA, "--max-tokens", 300, "--device", "cpu")
    train += ("--augmentation-share", 0.5)
    code, out, err = crystallm(*prepare, "--augmentations", 2, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["augmentations"] == 10
    code, _, err = crystallm(*train)
    assert code == 0, err
    (tmp_path / "data" / "equivalents.idx.npy").unlink()
    code, _, err = crystallm(*train[:5], "other", *train[6:])
    assert (code, "crystallm prepare --augmentations" in err) == (2, True)


def test_a_model_that_knows_the_book_finds_the_book(crystallm, parrot):
    command = (
        "benchmark",
        "csp",
        "book.csv",
        "-n",
        "1,2",
        "--model",
        parrot,
        "--workers",
        1,
    )
    code, out, err = crystallm(*command, "--temperature", 0, "--json")
    assert (code, err) == (0, "")
    scores = json.loads(out)
    assert scores["n_entries"] == 5
    assert [line["match_rate"] for line in scores["lines"] if line["name"] == "as the paper"] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("arguments", "expected", "says"),
    [
        (["prepare"], 2, "no input"),
        (["prepare", "book.csv"], 2, "--out is missing"),
        (["prepare", "missing.csv", "--out", "data"], 2, "missing.csv"),
        (["prepare", "book.csv=other", "--out", "data"], 2, "no split 'other'"),
        (["prepare", "book.csv", "--out", "data", "--workers", "0"], 2, "workers = '0'"),
        (["prepare", "recipe.yaml", "--out", "data"], 2, "no collection by its name"),
        (["prepare", "book.csv", "--out", "data", "--val-fraction", "2.5"], 2, "write a fraction"),
        (["prepare", "book.csv", "--out", "data", "--min-distance", "-1"], 2, "min_distance = '-1'"),
        (["prepare", "book.csv", "--out", "data", "--split-by", "splits.csv"], 2, "no such file"),
        (["prepare", "book.csv", "--out", "data", "--exclude", "gone.csv"], 2, "gone.csv"),
        (["prepare", "book.csv", "--out", "d", "--language", "cif", "--augmentations", "2"], 2, "not 'cif'"),
        (["prompts"], 2, "no crystals"),
        (["prompts", "book.csv"], 2, "--out is missing"),
        (["prompts", "book.csv", "--out", "x.txt"], 2, "ends in .csv"),
        (["prompts", "gone", "--out", "x.csv"], 2, "gone"),
        (["train"], 2, "--dataset is missing"),
        (["train", *DATA[:2]], 2, "--out is missing"),
        (["train", "--dataset", "missing", "--out", "run", "--max-updates", "1"], 2, "missing"),
        (["train", *DATA], 2, "give one of max_tokens, max_updates, max_minutes"),
        (["train", *DATA, "--max-minutes", "-1"], 2, "minutes"),
        (["train", "default", *DATA, "--max-minutes", "9"], 2, "give max_tokens, or augmentation_share = 0"),
        (["train", *DATA, "--max-minutes", "1", "--max-updates", "3"], 2, "not max_updates and max_minutes"),
        (["train", *DATA, "--resume", "--seed", "1"], 2, "keeps the recipe of the run: leave seed out"),
        (["train", "default", *DATA, "--resume"], 2, "leave default out"),
        (["train", *DATA, "--config", "bad.yaml"], 2, "did you mean n_layer?"),
        (["train", "bad.yaml", *DATA], 2, "did you mean n_layer?"),
        (["train", "gone.yaml", *DATA], 1, "gone.yaml cannot be read"),
        (["train", "paper", *DATA], 2, "one of default, orbits-carbon_24"),
        (["train", ".", "--out", "run"], 2, "--dataset is missing"),
        (["train", ".", *DATA], 2, "name a data set with --dataset ."),
        (["train", "recipe.yaml", *DATA, "--packing", "whole"], 2, "packing"),
        (["train", "recipe.yaml", *DATA, "--init-from", "nowhere"], 1, "no model 'nowhere'"),
        (["benchmark", "csp"], 2, "no data"),
        (["benchmark", "csp", "book.csv", "-n", "zero"], 2, "n_samples = 'zero'"),
        (["benchmark", "csp", "book.csv", "--entries", "0"], 2, "limit = '0'"),
        (["benchmark", "csp", "book.csv", "--split", "test"], 2, "no row of the split 'test'"),
        (["benchmark", "csp", "book.csv", "--model", "nowhere"], 1, "no model 'nowhere'"),
        (["benchmark", "csp", "noise.csv"], 1, "first is not a structure"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_writes_nothing(crystallm, tmp_path, arguments, expected, says):
    (tmp_path / "bad.yaml").write_text("n_layers: 2\n")
    (tmp_path / "noise.csv").write_text("id,cif\nfirst,noise\n")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = crystallm(*arguments)
    assert (code, out) == (expected, ""), err
    assert says in err
    assert err.startswith("crystallm: ")
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
