"""What a command's exit code says; docs/cli.md has the same table, and a test compares them."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes. Stable, because scripts go by them."""

    DONE = 0  # done as asked; with --wait, and of watch: the upgrade is Completed
    NO = 1  # the answer is no: doctor found a fault, a plan would not end well
    FAILED = 2  # no answer: not reached, refused, unknown, or wrongly typed
    FAULTED = 3  # the upgrade ended Faulted
    CANCELLED = 4  # the upgrade ended Cancelled, and that was not asked for
    STILL_RUNNING = 5  # --timeout passed first
    NOT_DONE = 6  # it did not come about: no upgrade started, no instance could be made
    INTERRUPTED = 130  # Ctrl-C
