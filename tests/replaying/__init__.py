"""`make replay-check`: fills and rewrites of a table under load, with kills."""
