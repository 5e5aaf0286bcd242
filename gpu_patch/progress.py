"""Progress bars, for who waits and looks on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gpu_patch.optional import if_installed

_DELAY = 1.0
"""Seconds that nobody needs a bar for."""


@contextmanager
def progress_bar(
    label: str, total: int, unit: str, *, unit_scale: bool = False, wanted: bool = True
) -> Iterator[Callable[[int], object]]:
    """Show a bar while it takes longer than a second, in a terminal or a notebook.

    Nothing is shown where tqdm is not installed, and nothing is left of the bar in the end.

    Parameters
    ----------
    label : str
        What is being done.
    total : int
        How much there is to do; for 0 there is no bar.
    unit : str
        What `total` counts.
    unit_scale : bool, default False
        Whether large numbers have SI prefixes, as bytes do.
    wanted : bool, default True
        Whether to show a bar at all.

    Yields
    ------
    callable
        Takes how much more has been done.
    """
    module = if_installed("tqdm.auto") if wanted and total else None
    if module is None:
        yield lambda _: None
        return
    with module.tqdm(
        total=total,
        desc=label,
        unit=unit,
        unit_scale=unit_scale,
        delay=_DELAY,
        leave=False,
        disable=None,  # where nobody looks on
    ) as bar:
        yield bar.update
