"""A command in a process of its own, which is killed when it has kept some of its work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SCRIPT = """
import sys, time
from crystallm.cli import app
from crystallm.storage.run_folder import RunFolder
write = RunFolder.write_unit
RunFolder.write_unit = lambda *all: time.sleep(600) if all[1] >= {last} else write(*all)
{patches}
sys.exit(app.run(sys.argv[1:]))
"""
SECONDS = 240
"""That a process may take to come so far, on a busy machine."""


def kill_after(
    units: int,
    arguments: Sequence[str],
    parts: Path,
    *,
    at_most: int,
    patches: str = "",
    cwd: Path | None = None,
) -> list[Path]:
    """Run `crystallm` until it has kept some units of work, then kill it and all that it has started.

    Args:
        units: so many have to be kept before.
        arguments: of the command.
        parts: folder in which it keeps them.
        at_most: unit at which it waits to be killed: however slow this process is, it never ends by itself.
        patches: Python that is run before.
        cwd: folder in which it runs.

    Returns:
        The files of the units that it has kept.
    """
    script = SCRIPT.format(last=at_most, patches=patches)
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,
    )
    until = time.monotonic() + SECONDS
    try:
        while len(list(parts.glob("*.parquet"))) < units:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < until, f"it has not come so far in {SECONDS} s"
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return sorted(parts.glob("*.parquet"))
