"""Constrained decoding: which tokens may come next."""
