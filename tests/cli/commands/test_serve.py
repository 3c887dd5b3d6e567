"""The command `crystallm serve`."""

from __future__ import annotations

import subprocess
import sys

import pytest


def test_two_servers_cannot_share_a_port(served, parrot, tmp_path):
    command = [
        sys.executable,
        "-m",
        "crystallm",
        "serve",
        "--port",
        str(served.port),
        "--models",
        str(parrot),
    ]
    run = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), "--energies", "none"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert f"cannot listen at 127.0.0.1:{served.port}" in run.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limits", "samples=0"], "samples"),
        (["--limits", "crystals=3"], "unknown option"),
        (["--port", "70000"], "port = 70000"),
        (["--energies", "nothing"], "no energy model 'nothing'"),
        (["--models", "nowhere"], "nowhere"),
        (["--keys", "missing.txt"], "cannot be read"),
        (["--proxies", "proxy.example"], "'proxy.example' is no address"),
    ],
)
def test_a_wrong_option_is_one_line(options, message, tmp_path, monkeypatch, capsys):
    from crystallm.cli import app

    monkeypatch.chdir(tmp_path)
    assert app.run(["serve", *options]) in (1, 2)
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
