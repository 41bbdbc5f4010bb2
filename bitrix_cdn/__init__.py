"""The code that runs on the operator's machine: from an inventory to deployed hosts."""
