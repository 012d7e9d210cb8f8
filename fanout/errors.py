"""Every error that fanout raises on purpose, and the exit code it ends a command with.

The text of an error names the machine (where there is one), what was tried, and the remedy.
"""


class FanoutError(Exception):
    """Base of all; the command line prints the text alone, without a traceback."""

    exit_code = 1


class UsageError(FanoutError):
    """Bad input: an option, a hosts file, a scenario that does not load."""

    exit_code = 2


class FleetError(FanoutError):
    """There is no fleet to run on: nothing could be provisioned or reached."""

    exit_code = 3


class ScenarioFailure(FanoutError):
    """What a scenario waited for or required did not come true."""


class Timeout(ScenarioFailure):
    """A deadline passed; the text says what was missing, and where."""
