"""Backup and restore of the hosts: `bitrix-cdn backup` and `bitrix-cdn restore`.

:mod:`host_agent.backup` runs on the hosts themselves, with the standard library only; this runs on the
operator's machine.
"""
