"""Cells of images, measured for background filters."""

from __future__ import annotations

from typing import Any

from gpu_patch._host import cells as host
from gpu_patch._host.library import Library, active

_LARGEST = 2.0**53
"""Threshold that is the same number for kernels and NumPy."""
_MOST_PIXELS = 1 << 30
"""Of a cell whose values are counted, by 32 bits."""


def count_near(cells: Any, threshold: Any) -> tuple[Any, Any] | None:
    """Return what `_host.cells.count_near` does; None where no kernel serves."""
    # numbers of NumPy have types of their own to compare in
    if type(threshold) not in (int, float) or abs(threshold) > _LARGEST:
        return None
    library = _library_for(cells)
    return None if library is None else host.count_near(library, cells, float(threshold))


def mean_and_deviation(cells: Any) -> tuple[Any, Any] | None:
    """Return what `_host.cells.mean_and_deviation` does; None where no kernel serves."""
    library = _library_for(cells)
    return None if library is None else host.mean_and_deviation(library, cells)


def entropies(cells: Any) -> Any | None:
    """Return what `_host.cells.entropies` does; None where no kernel serves."""
    library = _library_for(cells)
    if library is None or cells[0].size > _MOST_PIXELS:
        return None
    return host.entropies(library, cells)


def count_marked(cells: Any) -> Any | None:
    """Return what `_host.cells.count_marked` does; None where no kernel serves."""
    library = _library_for(cells)
    return None if library is None else host.count_marked(library, cells)


def _library_for(cells: Any) -> Library | None:
    """Return the kernels that measure these cells, None where there are none."""
    library = active()
    return library if library is not None and host.serves(cells) else None
