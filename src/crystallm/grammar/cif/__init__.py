"""The grammar of CIF texts."""
