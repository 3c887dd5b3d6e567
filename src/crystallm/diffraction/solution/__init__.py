"""Find the crystal of a powder pattern among candidates, and write what was found."""
