"""The errors that end a run: each carries one message for a person and the exit code for a program."""


class ShortfallError(Exception):
    """Base of the errors that the platform raises on purpose; ends a command with `exit_code`."""

    exit_code = 1


class InputError(ShortfallError):
    """Bad input or usage: the message names the file, line or value, the limit, and what to do."""

    exit_code = 2


class GateFailedError(ShortfallError):
    """A data gate stopped the run: the message names the expectation, what was seen and what was allowed."""

    exit_code = 3


class DiskFullError(ShortfallError):
    """The disk of the output is full; what was written before stays untouched."""

    exit_code = 2
