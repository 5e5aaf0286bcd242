"""Ctrl-C in processes that tests start."""

import signal


def hear_interrupts():
    """For `subprocess`: what a shell starts in the background ignores Ctrl-C, tests among it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
