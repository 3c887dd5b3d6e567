"""What a training run tells: `metrics.jsonl`, the picture of its losses, and event files for TensorBoard.

Knows numbers with names, not networks. Picture and event files are for people: where matplotlib or
tensorboard are not installed they are left out.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from crystallm.errors import CrystallmError
from crystallm.storage import files

if TYPE_CHECKING:
    from pathlib import Path


METRICS, PICTURE, EVENTS = "metrics.jsonl", "loss.png", "tensorboard"


def log(folder: Path, line: dict[str, Any]) -> None:
    """Append a line of metrics.

    Raises:
        CrystallmError: the folder cannot be written.
    """
    try:
        with (folder / METRICS).open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")
    except OSError as error:
        raise CrystallmError(f"cannot write {str(folder / METRICS)!r}: {error.strerror or error}") from error


def forget(folder: Path, update: int) -> None:
    """Drop what a killed run logged behind an update, half a line too."""
    kept = "".join(json.dumps(line) + "\n" for line in lines(folder) if line["update"] <= update)
    files.write_atomically(folder / METRICS, kept.encode())


def lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics, up to the first that is none."""
    path, found = folder / METRICS, []
    for row in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            line = json.loads(row)
            line["update"]
        except (ValueError, KeyError, TypeError):
            break
        found.append(line)
    return found


def picture(folder: Path) -> None:
    """Draw the losses a token against the tokens learned from.

    Raises:
        CrystallmError: the folder cannot be written.
    """
    try:
        from crystallm.visualization import charts

        content = charts.curves(
            {
                name: [
                    (line["tokens"] / 1e6, line[key]) for line in lines(folder) if line.get(key) is not None
                ]
                for name, key in (("training", "train_loss"), ("validation", "val_loss"))
            },
            labels=("million tokens", "loss, nats a token"),
        )
    except ImportError:
        return
    files.write_atomically(folder / PICTURE, content, sync=False)


class Board:
    """Event files for TensorBoard, where it is installed.

    Args:
        folder: of the run.
        update: from which the run goes on; what was told of later ones is taken back.
    """

    def __init__(self, folder: Path, update: int) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._writer = SummaryWriter(str(folder / EVENTS), purge_step=update + 1)

    def tell(self, line: dict[str, Any]) -> None:
        """Add a line of metrics."""
        if self._writer is not None:
            for name, value in line.items():
                if name != "update":
                    self._writer.add_scalar(name, value, line["update"])
            self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
