"""The record, on the host itself, of who changed it when, and how that ended."""
