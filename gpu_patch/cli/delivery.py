"""What is printed may not arrive: its reader leaves, as ``head`` does, or a disk is full."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress

from gpu_patch.cli.messages import one_line

_NOBODY_READS = 141
"""Status, as a shell tells of a program that SIGPIPE ends; Python ignores that signal."""


def delivered(run: Callable[[], int]) -> int:
    """Return the exit status that `run` returns, or that of what it could not print."""
    try:
        try:
            return run()
        finally:
            print(end="", flush=True)  # where the interpreter does it, it has words for a failure
    except OSError as error:
        _print_nowhere()  # what is left would be tried again
        if isinstance(error, BrokenPipeError):
            return _NOBODY_READS
        print(f"gpu-patch: error: stdout: {one_line(error, {})}", file=sys.stderr)
        return 2


def _print_nowhere() -> None:
    with suppress(OSError):  # of streams without a file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
