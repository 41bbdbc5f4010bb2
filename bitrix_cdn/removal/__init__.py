"""Takes the project from its hosts again: docs/uninstall.md."""
