"""Collections written for other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystallm.lazy import public_names

if TYPE_CHECKING:
    from crystallm.export.collection import export
    from crystallm.export.writers import FORMATS

__all__ = ["FORMATS", "export"]
__getattr__, __dir__ = public_names(
    __name__,
    {"FORMATS": "crystallm.export.writers", "export": "crystallm.export.collection"},
)
