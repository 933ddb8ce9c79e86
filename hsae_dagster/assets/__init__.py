"""One thin module per asset: read, call core, write, attach metadata."""
