"""Changes hosts: what a deploy would do, and doing it."""
