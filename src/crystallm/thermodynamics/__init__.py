"""Formation energies and the convex hull."""
