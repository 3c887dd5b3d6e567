"""What a model has learned, and what a structure is."""
