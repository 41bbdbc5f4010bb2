"""Backup and restore of the hosts: `bitrix-cdn backup` and `bitrix-cdn restore`.

`backup.host` is what runs on the hosts themselves, with the standard library only; all else runs on the
operator's machine.
"""
