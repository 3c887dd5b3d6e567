"""Powder patterns: read, simulate and refine them, and find the crystal that one belongs to."""
