"""What can go wrong and can be foreseen, said in one line."""


class LabError(Exception):
    """A failure whose message is one line that says what to do.

    `status` is the exit status that `python -m dev.lab` ends with.
    """

    status = 1


class RequirementError(LabError):
    """This machine lacks something that the lab can't do without."""

    status = 2


class UsageError(LabError):
    """A name or an option that can't be right."""

    status = 2
