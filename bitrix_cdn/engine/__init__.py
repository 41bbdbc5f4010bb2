"""Facts and operations of this project's own, in pyinfra's idiom, usable in any deploy.

They exist where pyinfra's own cost a round trip a file, lose a reload when a run is cut short, or
can't ask a service's checker before a file is in place.
"""
