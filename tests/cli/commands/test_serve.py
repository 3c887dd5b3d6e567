"""The commands `crystallm serve` and `crystallm cluster`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from crystallm.cli import app
from crystallm.web.options import ServeOptions, ServerLimits


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
        [*command, "--out", str(tmp_path / "out"), "--energy-models", "none"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert f"cannot listen at 127.0.0.1:{served.port}" in run.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-samples", "0"], "max_samples = '0'"),
        (["--max-crystals", "3"], "--max-crystals"),
        (["--port", "70000"], "port = '70000'"),
        (["--energy-models", "nothing"], "no energy model 'nothing'"),
        (["--models", "nowhere"], "nowhere"),
        (["--keys", "missing.txt"], "cannot be read"),
        (["--trusted-proxies", "proxy.example"], "'proxy.example' is not an address"),
    ],
)
def test_a_wrong_option_is_one_line(options, message, tmp_path, monkeypatch, capsys):
    pytest.importorskip("uvicorn", reason="the page needs uvicorn")
    monkeypatch.chdir(tmp_path)
    assert app.run(["serve", *options]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_each_limit_is_a_flag_and_a_line_of_the_file(tmp_path, monkeypatch):
    web_serve = pytest.importorskip("crystallm.web.serve", reason="the page needs fastapi")
    calls = []
    monkeypatch.setattr(web_serve, "serve", lambda options, limits, on_start: calls.append((options, limits)))
    (tmp_path / "serve.yaml").write_text("port: 8001\nmax-cell-atoms: 50\nenergy_models: none\n")
    flags = ["--config", str(tmp_path / "serve.yaml"), "--max-cell-atoms", "40", "--job-timeout", "2.5"]
    assert app.run(["serve", *flags]) == 0
    ((options, limits),) = calls
    assert options == ServeOptions(port=8001, energy_models=None)
    assert limits == ServerLimits(max_cell_atoms=40, job_timeout=2.5)


def test_cluster_prints_the_script_of_a_job(tmp_path, capsys):
    pytest.importorskip("dask_jobqueue", reason="a cluster needs dask-jobqueue")
    path = tmp_path / "slurm.yaml"
    path.write_text("system: slurm\ncores: 3\nmemory: 6GB\njobs: 2\n")
    assert app.run(["cluster", str(path)]) == 0
    script = capsys.readouterr().out
    assert script.startswith("#!")
    assert "#SBATCH" in script
    assert "--cpus-per-task=3" in script
