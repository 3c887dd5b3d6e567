"""Fixtures of runs over a folder of crystals."""

from known_folder import crystallm, place

__all__ = ["crystallm", "place"]
