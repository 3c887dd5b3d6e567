"""Scripts of jobs of SLURM, PBS and LSF, and files that describe them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from crystallm.cli.app import run
from crystallm.errors import CrystallmError, InputError
from crystallm.execution import cluster, job_queue
from misbehaving import behave

pytestmark = pytest.mark.usefixtures("kept", "undrawn")


@pytest.fixture
def queue(tmp_path: Path) -> Any:
    """A function that writes the file of a queue and returns its path."""

    def write(**values: Any) -> str:
        import yaml

        path = tmp_path / "queue.yaml"
        asked = {"system": "slurm", "cores": 8, "memory": "16GB"} | values
        path.write_text(yaml.safe_dump({name: value for name, value in asked.items() if value is not None}))
        return str(path)

    return write


@pytest.mark.parametrize(
    ("system", "sign", "directives"),
    [
        (
            "slurm",
            "SBATCH",
            ["--cpus-per-task=8", "--mem=15G", "-t 04:00:00", "-p long", "-A chem"],
        ),
        (
            "pbs",
            "PBS",
            ["-l select=1:ncpus=8:mem=15GB", "-l walltime=04:00:00", "-q long", "-A chem"],
        ),
        (
            "lsf",
            "BSUB",
            ["-n 8", "-M 16000000", "-W 04:00", "-q long", '-P "chem"'],
        ),
    ],
)
def test_the_script_of_a_job(
    system: str, sign: str, directives: list[str], queue: Any, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("LSF_ENVDIR", "/nowhere")
    path = queue(
        system=system,
        jobs=10,
        walltime="04:00" if system == "lsf" else "04:00:00",
        queue="long",
        **{"project" if system == "lsf" else "account": "chem"},
        job_extra_directives=["--exclusive"],
        job_script_prologue=["module load python"],
        interface="lo",
        local_directory="/scratch",
        python="/opt/python",
        scheduler_options={"dashboard_address": ":8787"},
        death_timeout=77,
    )
    assert run(["cluster", path]) == 0
    script = capsys.readouterr().out.splitlines()
    assert not {f"#{sign} {directive}" for directive in [*directives, "--exclusive"]} - set(script)
    assert script.index("export OMP_NUM_THREADS=1") < script.index("module load python") < len(script) - 1
    assert script[-1].startswith("/opt/python -m distributed.cli.dask_worker")
    for option in ("--nworkers 8", "--nthreads 1", "--local-directory /scratch", "--interface lo"):
        assert option in script[-1]
    assert "--death-timeout 77" in script[-1]


def test_fewer_processes_have_more_memory_each(queue: Any) -> None:
    assert "--nworkers 2 " in job_queue.job_script(queue(processes=2, memory="16GiB"))
    assert "--memory-limit 8.00GiB" in job_queue.job_script(queue(processes=2, memory="16GiB"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"walltme": "1"}, "walltme"),
        ({"system": "slrm"}, "system = 'slrm'"),
        ({"jobs": 0}, "jobs = '0'"),
        ({"cores": None}, "cores"),
        ({"jobs": 2, "maximum": 3}, "jobs = 2 beside minimum or maximum"),
        ({"minimum": 3}, "minimum = 3 without maximum"),
        ({"minimum": 3, "maximum": 2}, "minimum = 3 is above maximum = 2"),
        ({"walltime": 43200}, 'write "12:00:00", in quotes'),
        ({"memory": "much"}, "dask-jobqueue rejects it"),
    ],
)
def test_a_wrong_file_is_one_line(values: dict[str, Any], message: str, queue: Any, capsys: Any) -> None:
    path = queue(**values)
    assert run(["cluster", path]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert path in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("text", ["", "- a\n", "a: [", "\x00"])
def test_what_is_no_mapping_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match="x.yaml"):
        job_queue.job_script(str(tmp_path / "x.yaml"))
    with pytest.raises(CrystallmError, match="cannot be read"):
        job_queue.job_script(str(tmp_path / "none.yaml"))


def test_a_machine_without_the_queue_is_told(queue: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CrystallmError, match="no 'sbatch' here"), cluster.connect(queue()):
        pass


@pytest.mark.parametrize("asked", [{"jobs": 1}, {"maximum": 1}])
def test_jobs_of_a_queue_do_the_work(asked: Any, queue: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """A queue whose `sbatch` runs the script at once."""
    place = tmp_path / "bin"
    place.mkdir()
    # As the real one it keeps a copy: dask-jobqueue deletes its file at once.
    start = f'cp "$1" sh\nsetsid bash sh > {tmp_path}/log 2>&1 &\necho $! > {tmp_path}/job\n'
    (place / "sbatch").write_text(f"#!/bin/bash\ncd {tmp_path}\n{start}echo Submitted batch job $!\n")
    (place / "scancel").write_text(f'#!/bin/bash\necho "$1" > {tmp_path}/cancelled\nkill -- -"$1"\n')
    for file in place.iterdir():
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, [Path(__file__).parents[1]])))
    path = queue(cores=1, memory="2GB", **asked, scheduler_options={"host": "127.0.0.1"})
    with cluster.connect(path) as executor:
        assert executor.submit(behave, 5).result(timeout=60)[0] == 5
    assert (tmp_path / "cancelled").read_text() == (tmp_path / "job").read_text()
