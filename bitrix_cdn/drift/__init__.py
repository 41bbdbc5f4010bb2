"""Says where hosts differ from what their inventory describes; changes nothing: docs/drift.md.

`bitrix-cdn drift` lets pyinfra do a dry run of `bitrix_cdn/drift/check.py`, which is
`deploy.py` and one look at what no role would notice: files, ports, accounts and keys that are not declared.
"""
