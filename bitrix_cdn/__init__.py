"""What runs on the operator's machine: everything from an inventory to hosts that have what it says."""
