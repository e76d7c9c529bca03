"""The one exception that is meant for the person at the keyboard."""


class UserError(Exception):
    """What was asked for cannot be done. The message says what is wrong, where, and what is allowed.

    The command prints the message (it may have several lines) and exits with code 2.
    """
