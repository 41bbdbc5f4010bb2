"""What can go wrong and can be foreseen, said in one line."""


class MigrationError(Exception):
    """A failure whose message is one line that says what to do; the site goes on working as it did."""
