"""How long `crystallm --help` and its commands' take to answer: the median of ten runs each, in milliseconds.

python bench/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 10
LIMIT = 300.0  # ms


def main() -> int:
    """Print one line a command; exit code 1 if one is over the limit."""
    program = str(Path(sys.executable).with_name("crystallm"))
    slow = 0
    for command in ("", "generate", "models"):
        times = []
        for _ in range(RUNS):
            start = time.perf_counter()
            subprocess.run([program, *command.split(), "--help"], check=True, stdout=subprocess.DEVNULL)
            times.append(1000 * (time.perf_counter() - start))
        median = statistics.median(times)
        slow += median > LIMIT
        print(f"crystallm {command} --help".replace("  ", " "), f"{median:.0f} ms (max {max(times):.0f})")
    return int(slow > 0)


if __name__ == "__main__":
    sys.exit(main())
