"""The orbits language: a crystal by what symmetry leaves free."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystallm.lazy import public_names

if TYPE_CHECKING:
    from crystallm.orbits.description import Description, Orbit, describe, to_structure
    from crystallm.orbits.language import OrbitsLanguage, decode, encode

__all__ = ["Description", "Orbit", "OrbitsLanguage", "decode", "describe", "encode", "to_structure"]
__getattr__, __dir__ = public_names(
    __name__,
    {
        "Description": "crystallm.orbits.description",
        "Orbit": "crystallm.orbits.description",
        "OrbitsLanguage": "crystallm.orbits.language",
        "decode": "crystallm.orbits.language",
        "describe": "crystallm.orbits.description",
        "encode": "crystallm.orbits.language",
        "to_structure": "crystallm.orbits.description",
    },
)
