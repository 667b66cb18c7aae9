"""How calls go: their stages and deadline, streams, servers that fail, and what is counted of all that."""
