"""Shows the whole way of a picture on the running lab: `make demo`."""
