"""What runs on the hosts themselves, with Python 3.11 or newer and its standard library alone."""
