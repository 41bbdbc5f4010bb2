"""The possible results of a job."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """What a worker found."""

    FINISHED = "finished"
    """There is something to publish."""

    FRESH = "fresh"
    """A decision was there already."""

    FOREIGN = "foreign"
    """Somebody else's variant was there already."""

    TOO_LONG = "name-too-long"
    """Nothing can be made of it: the name leaves no room for a suffix."""

    GONE = "gone"
    """There is no such original any more."""

    UNREST = "unrest"
    """Too early to tell: it must have been at rest for a time first."""

    AWAY = "away"
    """The originals can't be read now: it is tried again later, and the picture isn't to blame."""

    DAMAGED = "damaged"
    """A resized picture that can't be decoded, long at rest: Bitrix shall make it again."""

    COPY = "copy"
    """The full original under the name of a resized picture, long at rest: Bitrix shall make it again."""

    FULL = "full"
    """No space left for the result."""

    AS_GOOD = "as-good"
    """A second pass made nothing smaller."""

    BROKEN = "broken"
    """A decoder refuses good pictures too: nothing can be said about this one, nor about the next."""
