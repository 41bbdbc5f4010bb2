"""What runs on the hosts themselves, with Debian 12's Python and its standard library alone."""
