"""What leaves a slab: values taken back, scaled, rounded, or the number of the largest channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def answer(
    slab: NDArray[np.float32],
    axis: int,
    rows: slice,
    out: NDArray[Any],
    flags: NDArray[np.uint8],
    *,
    factors: NDArray[np.float32] | None,
    centers: NDArray[np.float32] | None,
    scaling: tuple[np.float32, np.float32] | None,
    argmax: bool,
) -> None:
    """Make what leaves a slab; see `ops.answer`."""
    place = (slice(None),) * (axis - 1) + (rows,)

    def taken_back(plane: int) -> NDArray[np.float32]:
        values: NDArray[np.float32] = slab[plane][place]
        if factors is not None:
            values = values * factors[0, plane] + factors[1, plane]
        return values if centers is None else values + centers[plane]

    flags[...] = 0
    if argmax:
        flags[0] = _argmax(taken_back, len(slab), out[0])
        return
    for plane, made in enumerate(out):
        values = taken_back(plane)
        if scaling is not None:
            values = (values - scaling[0]) * scaling[1]
        flags[plane * (len(flags) // len(out))] = _put(values, made)


def _argmax(values_of: Any, n_planes: int, out: NDArray[Any]) -> bool:
    """Put the number of the largest plane; tell whether some value is NaN."""
    best = np.array(values_of(0))
    has_nan = bool(np.isnan(best).any())
    out[...] = 0
    for plane in range(1, n_planes):
        values = values_of(plane)
        has_nan = has_nan or bool(np.isnan(values).any())
        larger = values > best
        np.copyto(best, values, where=larger)
        np.copyto(out, out.dtype.type(plane), where=larger)
    return has_nan


def _put(values: NDArray[np.float32], out: NDArray[Any]) -> bool:
    """Put values; tell whether some cannot be held: not finite, where there are whole numbers."""
    if out.dtype.kind == "f":
        out[...] = values
        return False
    held = np.isfinite(values)
    limits = np.iinfo(out.dtype)
    # half to even; what is not held is 0
    rounded = np.rint(np.where(held, values, np.float32(0)))
    out[...] = np.clip(rounded, limits.min, limits.max, out=rounded)
    return not held.all()
