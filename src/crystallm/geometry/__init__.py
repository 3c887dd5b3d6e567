"""Atoms in a periodic cell: neighbours, bonds, contacts, symmetry."""
