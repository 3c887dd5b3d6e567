"""Relatives as a network reads them, before the crystal that it writes."""
