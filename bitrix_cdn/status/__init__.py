"""The state of the hosts: queried over SSH in one round trip a host, and from here as a visitor."""
