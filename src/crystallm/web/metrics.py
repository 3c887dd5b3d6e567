"""What a monitor reads, in the text format of Prometheus. Knows names and numbers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counters that only grow, by name and labels."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, Labels]] = Counter()
        self._helps: dict[str, str] = {}

    def count(self, name: str, text: str, by: float = 1, **labels: str) -> None:
        """Add to a counter.

        Args:
            name: without prefix and `_total`.
            text: what it counts.
            by: how many.
            labels: few and of few values.
        """
        self._helps[name] = text
        self._counts[name, tuple(sorted(labels.items()))] += by  # type: ignore[assignment] # seconds are counted too

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """The page that a monitor reads.

        Args:
            gauges: what is now: name -> (what it is, value).
        """
        lines = []
        for name in sorted(self._helps):
            lines += [
                f"# HELP crystallm_{name}_total {self._helps[name]}",
                f"# TYPE crystallm_{name}_total counter",
            ]
            for (other, labels), value in sorted(self._counts.items()):
                if other == name:
                    shown = ",".join(f'{key}="{_escaped(said)}"' for key, said in labels)
                    lines.append(f"crystallm_{name}_total{f'{{{shown}}}' if shown else ''} {value:g}")
        for name, (text, number) in sorted(gauges.items()):
            lines += [
                f"# HELP crystallm_{name} {text}",
                f"# TYPE crystallm_{name} gauge",
                f"crystallm_{name} {number:g}",
            ]
        return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def resident_bytes() -> int:
    """Memory of this process, where the system tells (Linux); 0 elsewhere."""
    import os
    from pathlib import Path

    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
