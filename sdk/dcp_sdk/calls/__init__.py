"""How calls go: their stages, streams, and servers that fail."""
