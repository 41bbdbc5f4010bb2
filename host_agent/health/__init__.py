"""Whether a service of ours is well, and what helps it to start."""
