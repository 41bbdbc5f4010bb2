"""How the hosts are: asked over SSH in one round trip a host, and from here as a visitor asks."""
