"""Options in, tables out; no logic of its own."""
