"""Keeps one sshfs mount alive, and keeps whoever uses it from ever waiting for the other host.

    mount-guard run NAME            supervise the mount that /etc/mount-guard/NAME.toml describes
    mount-guard status [--json]     what the guards of this host say
    mount-guard detach NAME         take away what a guard that was killed has left

sshfs mounts on a private path, is proven there, and only then bound over the real one. While the other
host is away the real path is an ordinary directory; on the site's host that directory is the *spool*,
whose files are pushed to the other host before the mount is laid over them again.

Standard library only, Python 3.11 or newer.
"""
