"""Is a crystal valid? The checks of the CrystaLLM paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystallm.lazy import public_names

if TYPE_CHECKING:
    from crystallm.validity.checks import check, check_many
    from crystallm.validity.verdict import StructureFacts, Validity

__all__ = ["StructureFacts", "Validity", "check", "check_many"]
__getattr__, __dir__ = public_names(
    __name__,
    {
        "StructureFacts": "crystallm.validity.verdict",
        "Validity": "crystallm.validity.verdict",
        "check": "crystallm.validity.checks",
        "check_many": "crystallm.validity.checks",
    },
)
