"""CIF texts: the published language, and CIFs of other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystallm.lazy import public_names

if TYPE_CHECKING:
    from crystallm.cif.parser import ParsedText, Row, parse
    from crystallm.cif.standard_structure import to_structure
    from crystallm.cif.writer import formula_unit, to_cif, to_text

__all__ = ["ParsedText", "Row", "formula_unit", "parse", "to_cif", "to_structure", "to_text"]
__getattr__, __dir__ = public_names(
    __name__,
    {
        "ParsedText": "crystallm.cif.parser",
        "Row": "crystallm.cif.parser",
        "formula_unit": "crystallm.cif.writer",
        "parse": "crystallm.cif.parser",
        "to_cif": "crystallm.cif.writer",
        "to_structure": "crystallm.cif.standard_structure",
        "to_text": "crystallm.cif.writer",
    },
)
