"""The error that the launcher prints as one line instead of a traceback."""


class LauncherError(Exception):
    """Something that a person can fix: the message says what is wrong and how to fix it."""
