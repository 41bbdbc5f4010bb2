"""What only those need who work on the project."""
