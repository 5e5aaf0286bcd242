"""What leaves a slab: made where the slab is, so that no more than it is copied and written."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch._numpy.answer import answer as numpy_answer
from gpu_patch.ops.image_set import runtime_of

_PER_FLAG = 4096
"""Values that a flag is about, PER_BLOCK in answer.cu."""
_TYPES = ("uint8", "int8", "uint16", "int16", "float16", "float32")


def flags_of(shape: tuple[int, ...]) -> int:
    """Return how many flags `answer` sets for an answer of a shape."""
    return shape[0] * -(-prod(shape[1:]) // _PER_FLAG)


def answer(
    slab: Any,
    axis: int,
    rows: slice,
    out: Any,
    flags: Any,
    *,
    factors: NDArray[np.float32] | None = None,
    centers: NDArray[np.float32] | None = None,
    scaling: tuple[np.float32, np.float32] | None = None,
    argmax: bool = False,
) -> None:
    """Make what leaves a slab of some of its rows.

    Each value is multiplied by the factor of its plane, and the two summands are added one after
    the other, where they are given; then `scaling` is applied, and the result is rounded to the
    nearest of the type of `out`, to the even one where two are as near, and cut to its range. Every
    step is rounded to float32. With `argmax`, the number of the plane that has the largest value is
    made instead, of equal ones the first.

    Parameters
    ----------
    slab : array of float32, shape (C, (Z), Y, X)
        C-contiguous, NumPy's or CuPy's.
    axis : int
        Its axis that rows are counted along, from 1 on.
    rows : slice
        Which rows, with start and stop.
    out : array of uint8, int8, uint16, int16, float16 or float32, shape (C or 1, (Z), Y, X)
        C-contiguous; as long as `rows` along `axis`. One plane for `argmax`, of whole numbers.
    flags : array of uint8, shape (flags_of(out.shape),)
        Becomes other than 0 somewhere where a value cannot be held: NaN and infinity by whole
        numbers, NaN by `argmax`. What `out` has there is undefined.
    factors : array of float32, shape (2, C), optional
        Factors of the planes, and summands.
    centers : array of float32, shape (C,), optional
        Further summands.
    scaling : (float32, float32), optional
        What is subtracted, and then multiplied by.
    argmax : bool, default False
        Whether the number of the largest is asked for.
    """
    runtime = runtime_of(slab, "slab")
    for name, array in (("out", out), ("flags", flags)):
        if runtime_of(array, name) is not runtime:
            raise ValueError(f"{name} must be on the device that the slab is on")
    wanted = list(slab.shape)
    wanted[0], wanted[axis] = 1 if argmax else len(slab), rows.stop - rows.start
    if slab.dtype != np.float32 or not slab.flags.c_contiguous:
        raise ValueError(f"slab must be C-contiguous float32, found {slab.dtype}")
    if not 0 <= rows.start < rows.stop <= slab.shape[axis]:
        raise ValueError(f"rows must be of the {slab.shape[axis]} of the slab, found {rows}")
    if tuple(out.shape) != tuple(wanted) or out.dtype.name not in _TYPES:
        raise ValueError(
            f"out must be of the shape {tuple(wanted)} and one of {', '.join(_TYPES)}, found "
            f"{out.dtype} of {tuple(out.shape)}"
        )
    if argmax and out.dtype.kind not in "iu":
        raise ValueError(f"out must be of whole numbers for argmax, found {out.dtype}")
    if flags.shape != (flags_of(out.shape),) or flags.dtype != np.uint8:
        raise ValueError(
            f"flags must be uint8 of the shape {(flags_of(out.shape),)}, found {flags.dtype} of "
            f"{flags.shape}"
        )
    options: dict[str, Any] = {
        "factors": factors,
        "centers": centers,
        "scaling": scaling,
        "argmax": argmax,
    }
    if runtime is None:
        # what is not finite, or too large for float16, stays so: no warning of NumPy's
        with np.errstate(over="ignore", invalid="ignore"):
            numpy_answer(slab, axis, rows, out, flags, **options)
        return
    from gpu_patch._cuda.answer import answer as cuda_answer

    cuda_answer(runtime, slab, axis, rows, out, flags, **options)
