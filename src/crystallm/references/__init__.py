"""Known crystals as prototypes, whose elements are replaced."""

from crystallm.lazy import public_names

__all__ = ["Analogue", "Library", "Relative", "find_analogues", "load_library"]
__getattr__, __dir__ = public_names(
    __name__,
    {
        "Analogue": "crystallm.references.lookup",
        "Library": "crystallm.references.library",
        "Relative": "crystallm.references.lookup",
        "find_analogues": "crystallm.references.lookup",
        "load_library": "crystallm.references.load",
    },
)
