"""Says where hosts differ from what their inventory describes; changes nothing: docs/drift.md.

`bitrix-cdn drift` lets pyinfra do a dry run of `bitrix_cdn/drift/check.py`, which is
`deploy.py` and an inspection that finds what no role notices: undeclared files, ports, accounts and keys.
"""
