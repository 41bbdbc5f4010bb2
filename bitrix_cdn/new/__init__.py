"""Makes a first inventory from the answers to questions."""
