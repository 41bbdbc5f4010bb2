"""Imported once by the server that worker processes are forked from, and by nothing else.

The workers then share its memory and start in milliseconds. The server dies with the thread that started it,
and each worker with the server, so nothing outlives a killed daemon.
"""

from webp_converter.base import linux
from webp_converter.events import scan
from webp_converter.work import cleanup, worker

__all__ = ["cleanup", "scan", "worker"]

linux.die_with_parent()
