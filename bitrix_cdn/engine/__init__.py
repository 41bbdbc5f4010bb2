"""This project's facts and operations for pyinfra, usable in any deploy.

They exist where those of pyinfra need a round trip for each file, lose a reload when a run is interrupted, or
can't run a service's checker before a file is in place.
"""
