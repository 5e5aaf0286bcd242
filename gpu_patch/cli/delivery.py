"""What is printed may not arrive: its reader leaves, as ``head`` does, or a disk is full."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress

from gpu_patch.cli.messages import one_line

_NOBODY_READS = 141
"""Status, as a shell tells of a program that SIGPIPE ends; Python ignores that signal."""


class UnreadError(Exception):
    """Nobody reads any more what is printed."""


def delivered(run: Callable[[], int]) -> int:
    """Return the exit status that `run` returns, or where that is 0, of what did not arrive."""
    ended, status = None, 0
    try:
        status = run()
    except UnreadError:
        status = _NOBODY_READS
    except SystemExit as error:
        ended, status = error, int(bool(error.code))
    try:
        print(end="", flush=True)  # where the interpreter does it, it has words for a failure
    except OSError as error:
        _print_nowhere()  # what is left would be tried again
        if status == 0:
            if isinstance(error, BrokenPipeError):
                return _NOBODY_READS
            print(f"gpu-patch: error: stdout: {one_line(error, {})}", file=sys.stderr)
            return 2
    if ended is not None:
        raise ended
    return status


def is_of_stdout(error: BaseException) -> bool:
    """Whether it says that nobody reads what is printed, and not something else that is written."""
    if not isinstance(error, BrokenPipeError) or error.filename is not None:
        return False
    if not hasattr(select, "poll"):
        return True
    with suppress(OSError, ValueError):  # of streams without a file
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)  # errors are told of unasked
        return any(what & select.POLLERR for _, what in poll.poll(0))
    return False


def _print_nowhere() -> None:
    with suppress(OSError):  # of streams without a file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
