"""Facts: elements, formulas, space groups, Wyckoff positions. Plain numbers, no structures."""
