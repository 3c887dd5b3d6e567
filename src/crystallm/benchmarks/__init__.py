"""Benchmarks: generated crystals against reference structures. No module here runs a model."""
