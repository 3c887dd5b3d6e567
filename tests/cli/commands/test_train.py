"""`crystallm train`: which recipe a command line means, and what a run reports."""

from __future__ import annotations

import sys

import pytest

from crystallm.cli import app
from crystallm.cli.commands import train as training_command
from crystallm.training import flops, loop, state
from crystallm.training.loss import Losses

DATA = ["--dataset", "data", "--out", "run"]
RECIPE = "n_layer: 1\nn_head: 2\nn_embd: 16\ncontext: 128\nwarmup: 1\n"


@pytest.fixture
def crystallm(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def run(*arguments):
        code = app.run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


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
