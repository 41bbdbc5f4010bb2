"""Backup and restore of the hosts: `python -m bitrix_cdn.backup`, behind `make backup` and `make restore`.

`backup.host` is what runs on the hosts themselves, with the standard library only; all else runs on the
operator's machine.
"""
