"""pymatgen structures, converted and compared."""
