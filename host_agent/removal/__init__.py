"""Takes what a deploy brought from the host again."""
