"""Search for crystals of low energy."""
