"""Which tokens may follow in an orbits text."""
