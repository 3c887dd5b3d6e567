"""`crystallm serve` and `crystallm cluster`."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from crystallm.cli.option_groups import ConfigOptions, Flat
from crystallm.errors import CrystallmError, install
from crystallm.web.options import ServeOptions, ServerLimits


def serve(
    *,
    options: Flat[ServeOptions] = ServeOptions.defaults(),
    limits: Flat[ServerLimits] = ServerLimits.defaults(),
    config: Flat[ConfigOptions] = ConfigOptions.defaults(),  # noqa: ARG001 - read by the command line
) -> None:
    """Serve a page that generates crystals for a formula, and the same as an HTTP API.

    crystallm serve --port 8000

    Needs pip install 'crystallm[web]'. Nothing leaves the machine, and only this machine is served unless
    --host says otherwise. Results are stored under --out for a week; a restart loses none.
    """
    try:
        from crystallm.web import serve as server
    except ImportError as error:
        raise CrystallmError(f"the page needs {error.name}: {install('web')}") from None

    def announce(url: str) -> None:
        sys.stderr.write(f"crystallm: {url} (Ctrl-C ends it)\n")

    server.serve(options, limits, on_start=announce)


def cluster(
    file: Annotated[str, Parameter(help="YAML file of the cluster.")],
) -> None:
    """Print the script of one job of a cluster without submitting it.

    crystallm cluster slurm.yaml

    The file has system (slurm, pbs, lsf), cores and memory of a job, and jobs or maximum. As needed it has
    minimum, processes, walltime, queue, account, job_extra_directives, job_script_prologue, interface,
    log_directory, local_directory, python, and other arguments of dask-jobqueue.
    """
    from crystallm.execution.job_queue import job_script

    sys.stdout.write(job_script(file).rstrip() + "\n")
