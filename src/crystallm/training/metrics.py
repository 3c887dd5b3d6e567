"""Metrics of a training run: `metrics.jsonl`, a plot of the losses, and event files for TensorBoard.

Plot and event files are skipped where matplotlib or tensorboard are not installed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError
from crystallm.storage import files

if TYPE_CHECKING:
    from pathlib import Path


METRICS, PLOT, EVENTS = "metrics.jsonl", "loss.png", "tensorboard"


def append(folder: Path, line: dict[str, Any]) -> None:
    """Append a line of metrics.

    Raises:
        CrystallmError: the folder cannot be written.
    """
    try:
        with (folder / METRICS).open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")
    except OSError as error:
        raise CrystallmError(f"cannot write {str(folder / METRICS)!r}: {error.strerror or error}") from error


def truncate(folder: Path, update: int) -> None:
    """Drop the lines of a killed run after an update, and an incomplete last line."""
    kept = "".join(json.dumps(line) + "\n" for line in read(folder) if line["update"] <= update)
    files.write_atomically(folder / METRICS, kept.encode())


def read(folder: Path) -> list[dict[str, Any]]:
    """Read the lines of metrics, up to the first invalid one."""
    path, lines = folder / METRICS, []
    for row in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            line = json.loads(row)
            line["update"]
        except (ValueError, KeyError, TypeError):
            break
        lines.append(line)
    return lines


def plot(folder: Path) -> None:
    """Plot the losses per token against the number of tokens.

    Raises:
        CrystallmError: the folder cannot be written.
    """
    try:
        from crystallm.visualization import charts

        content = charts.curves(
            {
                name: [
                    (line["tokens"] / 1e6, line[key]) for line in read(folder) if line.get(key) is not None
                ]
                for name, key in (("training", "train_loss"), ("validation", "val_loss"))
            },
            labels=("million tokens", "loss, nats a token"),
        )
    except ImportError:
        return
    files.write_atomically(folder / PLOT, content, sync=False)


class TensorBoard:
    """Event files for TensorBoard, where it is installed.

    Args:
        folder: of the run.
        update: from which the run continues; later events are purged.
    """

    def __init__(self, folder: Path, update: int) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._writer = SummaryWriter(str(folder / EVENTS), purge_step=update + 1)

    def add(self, line: dict[str, Any]) -> None:
        """Add a line of metrics."""
        if self._writer is not None:
            for name, value in line.items():
                if name != "update":
                    self._writer.add_scalar(name, value, line["update"])
            self._writer.flush()

    def close(self) -> None:
        """Flush and close the file."""
        if self._writer is not None:
            self._writer.close()
