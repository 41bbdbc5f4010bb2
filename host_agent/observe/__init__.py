"""Objects for monitoring."""
