"""The grammar of orbits sequences."""
