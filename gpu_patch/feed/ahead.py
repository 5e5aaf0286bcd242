"""Batches made before they are asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import count, takewhile
from typing import Any

from gpu_patch.device import SideStream
from gpu_patch.ops import compile_for
from gpu_patch.specs import PatchBatch


def made_ahead(
    make: Callable[[int], PatchBatch],
    n_steps: float,
    prefetch: int,
    device: str,
    *,
    rehearse: Callable[[], object] | None = None,
) -> Generator[PatchBatch]:
    """Yield make(0), make(1), …, of which `prefetch` are made before they are asked for.

    There are `n_steps`, or no end where that is infinity. `rehearse` makes the first batch, too: it
    may be called before, so that the kernels of a device are compiled together.
    """
    if device != "cpu":
        return _on_stream(make, n_steps, prefetch, device, rehearse)
    if prefetch:
        return _in_thread(make, n_steps, prefetch)
    return (make(step) for step in _up_to(n_steps))


def _up_to(end: float) -> Iterator[int]:
    """Count from 0 to below `end`."""
    return takewhile(lambda step: step < end, count())


def _in_thread(
    make: Callable[[int], PatchBatch], n_steps: float, prefetch: int
) -> Generator[PatchBatch]:
    with ThreadPoolExecutor(1, thread_name_prefix="gpu_patch") as executor:
        waiting: deque[Future[PatchBatch]] = deque()
        try:
            for step in _up_to(n_steps + prefetch):
                if step < n_steps:
                    waiting.append(executor.submit(make, step))
                if step >= prefetch:
                    yield waiting.popleft().result()
        finally:  # where the loop was left early, what has not begun need not be made
            executor.shutdown(cancel_futures=True)


def _on_stream(
    make: Callable[[int], PatchBatch],
    n_steps: float,
    prefetch: int,
    device: str,
    rehearse: Callable[[], object] | None,
) -> Generator[PatchBatch]:
    stream = SideStream(device, "batches")
    waiting: deque[tuple[PatchBatch, Any] | Exception] = deque()
    if rehearse is not None:
        with suppress(Exception):  # the batch itself meets it again, in its turn
            compile_for(device, lambda: stream.run(rehearse))

    def publish() -> PatchBatch:
        first = waiting.popleft()
        if isinstance(first, Exception):
            raise first
        batch, event = first
        names = [name for name in ("input", "target") if getattr(batch, name) is not None]
        arrays = stream.publish((getattr(batch, name) for name in names), event)
        return batch._replace(**dict(zip(names, arrays, strict=True)))

    for step in _up_to(n_steps + prefetch):
        if step < n_steps:
            try:
                waiting.append(stream.run(partial(make, step)))
            except Exception as error:  # raised when its turn comes, behind the batches before it
                waiting.append(error)
        if step >= prefetch:
            yield publish()
