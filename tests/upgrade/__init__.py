"""The upgrade of a running shop: the previous release, visitors, then this tree (`make upgrade-test`)."""
