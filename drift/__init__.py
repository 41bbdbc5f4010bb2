"""Says where hosts differ from what their inventory describes; changes nothing: docs/drift.md.

`python -m drift INVENTORY` lets pyinfra do a dry run of `drift/check.py`, which is `deploy.py` and one look
at what no role would notice: files, ports, accounts and keys that nobody declared.
"""
