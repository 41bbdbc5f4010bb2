"""Measurements on the lab that decide settings; their results are in `docs/`."""
