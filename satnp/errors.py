"""The exception for errors that the user can fix."""


class InputError(ValueError):
    """Bad input: one sentence that says what was seen, what was wanted and what to do.

    The command line prints it and exits with status 2; in Python it is an ordinary ValueError.
    """
