"""Metrics of a training run: `metrics.jsonl`, a plot of the losses, and event files for TensorBoard.

Plot and event files are skipped where matplotlib or tensorboard are not installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crystallm.storage.files import write_atomically
from crystallm.storage.journal import append_records, read_records, write_records

METRICS, PLOT, EVENTS = "metrics.jsonl", "loss.png", "tensorboard"


def append(folder: Path, line: dict[str, Any]) -> None:
    """Append a line of metrics. Raises CrystallmError: the folder cannot be written."""
    append_records(folder / METRICS, [line])


def truncate(folder: Path, update: int) -> None:
    """Drop the lines of a killed run after an update, and an incomplete last line."""
    write_records(folder / METRICS, [line for line in read(folder) if line["update"] <= update])


def read(folder: Path) -> list[dict[str, Any]]:
    """Read the lines of metrics, up to an incomplete last one.

    Raises:
        CrystallmError: an earlier line is damaged.
    """
    return read_records(folder / METRICS)


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
    write_atomically(folder / PLOT, content, sync=False)


class TensorBoard:
    """Event files for TensorBoard, where it is installed.

    Args:
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
