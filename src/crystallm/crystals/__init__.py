"""Sampled crystals: validity, energies, ranks, tables."""
