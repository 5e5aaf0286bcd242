"""Compiling kernels several at a time, before anything is launched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from gpu_patch.progress import progress_bar

_LOOK_AGAIN = 0.25
"""Seconds after which somebody who waits sees what has become of it."""


class _Rehearsal(threading.local):
    kernels: list[Any] | None = None


_this_thread = _Rehearsal()


@contextmanager
def rehearsal() -> Iterator[list[Any]]:
    """Launch nothing in this thread for a while; what is yielded gets the kernels to compile."""
    kernels: list[Any] = []
    _this_thread.kernels = kernels
    try:
        yield kernels
    finally:
        _this_thread.kernels = None


def rehearsed() -> list[Any] | None:
    """Return where kernels go that are to be compiled later, None where there is no rehearsal."""
    return _this_thread.kernels


def in_parallel(compile_one: Callable[[Any], None], kernels: Sequence[Any]) -> None:
    """Compile kernels, each in a thread, with a progress bar where that takes over a second."""
    if not kernels:
        return
    with (
        progress_bar("compiling CUDA kernels", len(kernels), "kernel") as advance,
        ThreadPoolExecutor(len(kernels), thread_name_prefix="gpu_patch_compiling") as executor,
    ):
        futures = [executor.submit(compile_one, kernel) for kernel in kernels]
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, _LOOK_AGAIN)
            advance(len(done))
    for future in futures:
        future.result()
