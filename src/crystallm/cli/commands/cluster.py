"""`crystallm cluster`: what `--cluster FILE.yaml` would submit."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter


def cluster(
    path: Annotated[str, Parameter(help="YAML file that says what to ask the queue for.")],
) -> None:
    """Print the script of one job of a cluster, and submit nothing.

    crystallm cluster slurm.yaml

    The file says system (slurm, pbs, lsf), cores and memory of a job, and jobs or maximum; as needed minimum,
    processes, walltime, queue, account, job_extra_directives, job_script_prologue, interface, log_directory,
    local_directory, python, and below options what else dask-jobqueue knows.
    """
    from crystallm.execution.job_queue import job_script

    sys.stdout.write(job_script(path).rstrip() + "\n")
