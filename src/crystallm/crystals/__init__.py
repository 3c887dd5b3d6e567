"""Sampled crystals: verdicts, energies, ranks, tables."""
