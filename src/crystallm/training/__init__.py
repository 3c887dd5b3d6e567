"""Token shards become weights."""
