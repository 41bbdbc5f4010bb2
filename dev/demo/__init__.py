"""Shows all stages of a picture on the running lab: `make demo`."""
