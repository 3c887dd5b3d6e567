"""`prepare`, `train` and `benchmark` from end to end, on the crystals of a textbook."""

from __future__ import annotations

import csv
import json
import sys

import pytest
from pyarrow import parquet

from crystallm.cli import app
from crystallm.cli.commands import train as training_command
from crystallm.training import flops, loop, state
from crystallm.training.loss import Losses

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
    code, out, err = crystallm(*prepare, "--equivalents", 2, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["equivalents"] == 10
    code, _, err = crystallm(*train)
    assert code == 0, err
    (tmp_path / "data" / "equivalents.idx.npy").unlink()
    code, _, err = crystallm(*train[:5], "other", *train[6:])
    assert (code, "crystallm prepare --augmentations" in err) == (2, True)


@pytest.fixture
def trained(monkeypatch):
    """What the command asks the trainer for; nothing is trained."""
    asked = []

    def train(recipe, data, out, **more):
        asked.append((recipe, data, out, more))
        return state.TrainingProgress(share=1.0)

    monkeypatch.setattr(loop, "train", train)
    return asked


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["default"],
            {"n_embd": 256, "max_tokens": 60_000_000, "max_updates": None, "augmentation_share": 0.9},
        ),
        (
            ["default", "--max-updates", 7, "--augmentation-share", 0, "--no-bias"],
            {"max_tokens": None, "max_updates": 7, "augmentation_share": 0.0, "learning_rate": 0.0035},
        ),
        (
            ["default", "--config", "more.yaml"],
            {"max_minutes": None, "max_tokens": 500, "n_embd": 64, "seed": 3},
        ),
        (
            ["default", "--config", "more.yaml", "--seed", 4, "--max-minutes", 2, "--augmentation-share", 0],
            {"max_minutes": 2.0, "max_tokens": None, "seed": 4},
        ),
        (
            ["recipe.yaml", "--max-updates", 2, "--max-loss-jump", "none"],
            {"n_embd": 16, "max_loss_jump": None},
        ),
        (["--max-tokens", 9], {"n_embd": 512, "patience": None, "learning_rate": 1e-3}),
        (
            ["--max-tokens", 9, "--init-from", "PARROT"],
            {
                "n_layer": 2, "n_head": 2, "n_embd": 48, "context": 128, "learning_rate": 3e-4, "warmup": 100,
                "patience": 5, "final_learning_rate_fraction": 0.01,
            },
        ),
        (
            ["--max-tokens", 9, "--init-from", "PARROT", "--learning-rate", 0.1, "--patience", "none"],
            {"learning_rate": 0.1, "patience": None, "final_learning_rate_fraction": 0.01},
        ),
        (
            ["recipe.yaml", "--max-tokens", 9, "--init-from", "PARROT"],
            {"n_layer": 1, "n_embd": 16, "warmup": 1},
        ),
    ],
)  # fmt: skip
def test_a_flag_wins_over_the_file_and_that_over_the_default(
    crystallm, tmp_path, parrot, trained, arguments, expected
):
    (tmp_path / "more.yaml").write_text(
        "max_tokens: 500\nn_embd: 64\nseed: 3\ndataset: data\nout: run\ndevice: cpu\n"
    )
    arguments = [parrot if argument == "PARROT" else argument for argument in arguments]
    where = [] if "more.yaml" in arguments else DATA
    code, _, err = crystallm("train", *arguments, *where)
    assert code == 0, err
    ((recipe, data, out, more),) = trained
    assert {name: getattr(recipe, name) for name in expected} == expected
    assert (data, out, more["resume"]) == ("data", "run", False)
    assert more["device"] == ("cpu" if "more.yaml" in arguments else "auto")
    *said, last = err.splitlines()
    assert last.startswith("the best weights: run/model; crystallm generate ")
    assert len(said) == ("--init-from" in arguments)
    if said:
        assert said[0].startswith(f"from the weights of {parrot}: ")
        assert ("n_layer 2" in said[0]) == (recipe.n_layer == 2)


def test_a_run_goes_on_with_its_folder_and_its_data_alone(crystallm, trained):
    assert crystallm("train", *DATA, "--resume")[0] == 0
    assert trained[0][3]["resume"]


def test_a_terminal_is_told_how_it_goes(monkeypatch, capsys):
    monkeypatch.setattr(flops, "peak", lambda *_: (1e9, "measured"))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    report = training_command.TrainingReporter("cpu", "auto")
    report(state.TrainingProgress(0.25, 5, 0, 5, 10.0, 5_000, 3.0, operations=1e9), None)
    report(state.TrainingProgress(0.5, 10, 0, 10, 20.0, 15_000, 2.5, operations=4e9), None)
    report(state.TrainingProgress(0.5, 10, 0, 10, 20.0, 15_000, 2.5, 70.0, operations=4e9), Losses(2.0, 70.0))
    report(state.TrainingProgress(1.0, 20, 0, 20, 7220.0, 16_000, 2.5, 70.0, 1, 5e9), Losses(2.0, 71.0))
    out = capsys.readouterr().err
    running, full = out.split("\n")[0].split("\r")[2:4]
    line = (
        " 50.0 %  update 10  0.01 M tokens  loss 2.500 nats a token  1,000 tokens/s  30 % of peak  20 s left"
    )
    assert running == f"{line}\x1b[K"
    assert full == f"{line}  validation 70.000 nats a crystal (best)\x1b[K"
    assert out.split("\n")[1].endswith("0 s left  validation 71.000 nats a crystal\x1b[K")


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
        (["prepare", "book.csv", "--out", "data", "--split", "splits.csv"], 2, "no such file"),
        (["prepare", "book.csv", "--out", "data", "--exclude", "gone.csv"], 2, "gone.csv"),
        (["prepare", "book.csv", "--out", "d", "--language", "cif", "--augmentations", "2"], 2, "not 'cif'"),
        (["prompts"], 2, "no source"),
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
        (["train", ".", *DATA], 2, "a data set is named with --dataset ."),
        (["train", "recipe.yaml", *DATA, "--packing", "whole"], 2, "packing"),
        (["train", "recipe.yaml", *DATA, "--init-from", "nowhere"], 1, "no model 'nowhere'"),
        (["benchmark", "csp"], 2, "no data"),
        (["benchmark", "csp", "book.csv", "-n", "zero"], 2, "n = 'zero'"),
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
