"""Imported once by the server that worker processes are forked from, and by nothing else.

The workers then share its memory and start in milliseconds. The server dies with the thread that started it,
and each worker with the server, so nothing outlives a killed daemon.
"""

from webp_converter import cleanup, linux, scan, worker

__all__ = ["cleanup", "scan", "worker"]

linux.die_with_parent()
