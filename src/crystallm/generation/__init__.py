"""A request becomes crystals."""
