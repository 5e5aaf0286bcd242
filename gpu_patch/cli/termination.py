"""SIGTERM ends a command as Ctrl-C does, so that it cleans up."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """A process was asked to end."""


@contextmanager
def terminable() -> Iterator[None]:
    """Raise `Terminated` at SIGTERM, unless the program that runs the command handles it."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    process = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        own = os.getpid() == process
        # schedulers ask more than once: cleaning up is not interrupted
        signal.signal(signal.SIGTERM, signal.SIG_IGN if own else signal.SIG_DFL)
        if own:
            raise Terminated
        os.kill(os.getpid(), signal.SIGTERM)  # a forked process has nothing to clean up

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
