"""Removes the project from its hosts: docs/uninstall.md."""
