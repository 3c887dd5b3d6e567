"""Which characters and tokens may follow in a CIF text."""
