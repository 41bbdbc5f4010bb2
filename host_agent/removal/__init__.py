"""Removes what a deploy installed on the host."""
