"""A first inventory, made of the answers to questions."""
