"""Makes, checks and restores this host's backups; installed on each host as `bitrix-cdn-backup`.

Standard library and Debian's restic only. `parts` knows what to save; `restic` is the only module
that talks to the repository.
"""
