"""The one kind of failure that the launcher reports as a line instead of a traceback."""


class Problem(Exception):
    """Something a person can put right; its message is one line that says what and how."""
