"""Makes, checks and puts back this host's backups; installed on each host as `bitrix-cdn-backup`.

Standard library and Debian's restic only. What there is to save, `parts` knows; `restic` is the only module
that talks to the repository.
"""
