"""Collections of structures become token shards."""
