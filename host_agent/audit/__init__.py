"""The record on a host of who changed it, when, and with what result."""
