"""`make audit`: what known tools say of a deployed lab, as figures with limits.

The limits are in `dev/audit/limits.toml`, and nowhere else: `tests/testinfra/test_sandboxes.py` holds the
units to them as well.
"""
