"""The one error a user is meant to read."""


class VolsamError(Exception):
    """What is wrong, where, and what to do about it, in one sentence.

    Raised for everything a user can cause or mend (input, settings, disk, models). The command
    line prints it without a traceback and exits with 1; any other exception is a fault of ours.
    """
