"""Replaces the keys that the hosts' mounts log in with; the mounts stay up.

pyinfra inventories/production.py rotate_keys.py
"""

from pyinfra import host

from roles.preflight import refuse_if_held, refuse_without_peer, settings_of
from roles.rotation import rotation

settings = settings_of(host)
if {"bitrix", "cdn"} & set(host.groups):
    refuse_if_held(settings)
    refuse_without_peer()
    rotation(settings=settings)
