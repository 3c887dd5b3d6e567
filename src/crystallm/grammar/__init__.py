"""Constrained decoding: which tokens are allowed next."""
