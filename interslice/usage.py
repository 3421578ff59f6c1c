"""What cannot be done because of how it was asked for, and not because of the data."""


class UsageError(ValueError):
    """An option, its value, or a word of the command line makes no sense. A program ends with status 2."""
