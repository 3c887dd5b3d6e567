"""Collections of structures as streams of entries: `read(path)` takes any file or folder of crystals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystallm.lazy import public_names

if TYPE_CHECKING:
    from crystallm.sources.collection import read, read_cifs
    from crystallm.sources.entry import Entry

__all__ = ["Entry", "read", "read_cifs"]
__getattr__, __dir__ = public_names(
    __name__,
    {
        "Entry": "crystallm.sources.entry",
        "read": "crystallm.sources.collection",
        "read_cifs": "crystallm.sources.collection",
    },
)
