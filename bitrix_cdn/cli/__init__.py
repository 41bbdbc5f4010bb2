"""The command `bitrix-cdn`: a module a group of subcommands, and no logic.

What only one command needs is imported in it: help and completion don't wait for the others.
"""

from bitrix_cdn.cli.main import app, main

__all__ = ["app", "main"]
