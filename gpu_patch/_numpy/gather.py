"""Patches at their native scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch._numpy.windows import read_windows
from gpu_patch.epilogue import Epilogue
from gpu_patch.plan import Rows


def gather(
    images: Sequence[NDArray[Any]],
    rows: Rows,
    patch_size: tuple[int, ...],
    n_scales: int,
    mode: str,
    out: NDArray[Any],
    epilogue: Epilogue | None = None,
) -> None:
    """Fill `out` (B, C, (Z), Y, X) with the patches of `rows`; see `ops.gather`."""
    orientation = None if epilogue is None else epilogue.orientation
    read_windows(images, rows, rows.coords, patch_size, n_scales, mode, out, orientation)
    if epilogue is not None:
        finish(out, epilogue.input_scale, epilogue.input_offset)


def finish(out: NDArray[Any], scale: NDArray[np.float32], offset: NDArray[np.float32]) -> None:
    """Replace values (B, C, ...) by value · scale + offset, with scale and offset (B, C)."""
    shape = (*scale.shape, *(1,) * (out.ndim - 2))
    if (scale != 1).any():
        out *= scale.reshape(shape)
    if offset.any():
        out += offset.reshape(shape)
