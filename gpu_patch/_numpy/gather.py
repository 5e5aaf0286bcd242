"""Patches at their native scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from gpu_patch._numpy.windows import read_windows
from gpu_patch.plan import Rows


def gather(
    images: Sequence[NDArray[Any]],
    rows: Rows,
    patch_size: tuple[int, ...],
    n_scales: int,
    mode: str,
    out: NDArray[Any],
) -> None:
    """Fill `out` (B, C, (Z), Y, X) with the patches of `rows`; see `ops.gather`."""
    read_windows(images, rows, rows.coords, patch_size, n_scales, mode, out)
