"""The exception whose message is meant for the user."""


class UserError(Exception):
    """What the user asked for cannot be done.

    The message says what is wrong, where, and what is allowed. It may have several lines. The command
    prints it and exits with code 2.
    """
