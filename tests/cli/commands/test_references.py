"""`crystallm references build`, and generate from what it made."""

from __future__ import annotations

import json

import pytest

import random_models
from crystallm.cli import app
from crystallm.datasets import shards
from crystallm.models import folder
from crystallm.network.transformer import GPT
from known_crystals import REPLACED, with_elements


@pytest.fixture
def cifs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifs").mkdir()
    for symbols in REPLACED["rutile"]:
        with_elements("rutile", symbols).to(str(tmp_path / "cifs" / f"{''.join(symbols)}.cif"))


@pytest.mark.usefixtures("cifs", "inline")
def test_a_library_is_built_and_used(capsys, tmp_path):
    assert app.run(["references", "build", "cifs", "--out", "l.parquet", "--workers", "1"]) == 0
    assert "l.parquet: 3 crystals of 3 rows, 0 equal to others, 0 rejected" in capsys.readouterr().out
    generate = ["generate", "PbO2", "--from", "references", "--references", "l.parquet", "-n", "4"]
    assert app.run([*generate, "--json", "--out", "out"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    row = json.loads(line)
    assert (row["space_group"], row["relative_formula"], row["relative"]) == ("P4_2/mnm", "SnO2", "SnO")
    assert len(list((tmp_path / "out" / "cifs").iterdir())) == 1
    assert app.run(generate) == 0
    assert "SnO2, SnO" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["references", "build"], "no input"),
        (["references", "build", "cifs"], "--out is missing"),
        (
            ["references", "build", "cifs", "--out", "l.csv"],
            "--out 'l.csv': the file of a library ends in .parquet",
        ),
        (["generate", "PbO2", "--from", "references", "--references", "no.parquet"], "no library"),
        (["generate", "--elements", "Pb-O", "--from", "references", "--references", "cifs"], "by a formula"),
    ],
)
@pytest.mark.usefixtures("cifs")
def test_wrong_questions(arguments, message, capsys):
    assert app.run(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("cifs", "inline")
def test_relatives_are_added_to_a_data_set(capsys):
    assert app.run(["prepare", "cifs=train", "--out", "data", "--workers", "1", "--quiet"]) == 0
    assert app.run(["references", "relatives", "data", "--references", "cifs", "--workers", "1"]) == 0
    assert "data: relatives of 3 crystals, 0 have none" in capsys.readouterr().out
    assert app.run(["references", "relatives", "missing", "--workers", "1"]) == 2
    assert "no data set in 'missing'" in capsys.readouterr().err


@pytest.mark.usefixtures("cifs", "inline")
def test_hypothetical_crystals_become_a_data_set(capsys):
    assert app.run(["prepare", "cifs=train", "--out", "data", "--workers", "1", "--quiet"]) == 0
    command = ["references", "hypothetical", "data", "--references", "cifs", "--workers", "1", "-n", "20"]
    assert app.run([*command, "--out", "made", "--least-probability", "0", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["crystals"] > 0
    assert shards.facts("made")["crystals"] == {"train": report["crystals"]}
    assert app.run([*command, "--out", "made"]) == 2
    assert "'made' holds a data set" in capsys.readouterr().err


@pytest.mark.usefixtures("cifs", "inline")
def test_a_network_that_reads_known_crystals_generates(capsys, tmp_path):
    model = random_models.random_model("orbits", "llama")
    network = GPT(model.config.model_copy(update={"n_relatives": 2, "context": 200})).eval()
    folder.save(network, tmp_path / "reader")
    generate = [
        "generate",
        "PbO2",
        "--z",
        "2",
        "--model",
        "reader",
        "-n",
        "2",
        "--json",
        "--references",
        "cifs",
    ]
    assert app.run([*generate, "--from", "reading", "--out", "read"]) == 0
    assert app.run([*generate, "--from", "network", "--out", "unread"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["formula"] for row in rows] == ["Pb2O4"] * 4
    assert [row["log_likelihood"] for row in rows[:2]] != [row["log_likelihood"] for row in rows[2:]]
    configuration = json.loads((tmp_path / "read" / "run.json").read_text())
    assert configuration["source"] == "reading"
