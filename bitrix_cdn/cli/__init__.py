"""The command `bitrix-cdn`: a module for each group of subcommands, without logic.

Imports for only one command are inside it, so that help and completion are fast.
"""

from bitrix_cdn.cli.main import app, main

__all__ = ["app", "main"]
