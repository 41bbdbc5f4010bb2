"""Foreseeable errors, each reported in one line that says what to do."""

from bitrix_cdn import fleet


class LabError(fleet.HostError):
    """A failure."""


class RequirementError(LabError, fleet.UsageError):
    """This machine lacks something that the lab can't do without."""


class UsageError(LabError, fleet.UsageError):
    """A name or an option that can't be right."""
