"""How the operator's machine connects, whatever the inventory."""

# A host that is just booting refuses for a moment.
ssh_connect_retries = 2
ssh_connect_retry_min_delay = 0.5
ssh_connect_retry_max_delay = 1.5
