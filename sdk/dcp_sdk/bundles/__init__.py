"""A bundle's way into memory: its files, who signed them, what they promise and what was measured of them."""
