"""Token sequences sampled from a network."""
