"""What leaves a slab, in one launch."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch._cuda.runtime import Runtime, launch
from gpu_patch.table import PIXEL_TYPES, pack

_THREADS = 256

_JOB = np.dtype(
    [
        ("n_pixels", np.int64),
        ("run", np.int64),
        ("pitch", np.int64),
        ("first", np.int64),
        ("plane", np.int64),
        ("n_planes", np.int32),
        ("n_blocks", np.uint32),
        ("offset", np.float32),
        ("factor", np.float32),
        ("is_scaled", np.int32),
        ("unused", np.int32),
    ]
)
"""`struct AnswerJob`."""


def answer(
    runtime: Runtime,
    slab: Any,
    axis: int,
    rows: slice,
    out: Any,
    flags: Any,
    *,
    factors: NDArray[np.float32] | None,
    centers: NDArray[np.float32] | None,
    scaling: tuple[np.float32, np.float32] | None,
    argmax: bool,
) -> None:
    """Make what leaves a slab; see `ops.answer`."""
    n_pixels, behind = prod(out.shape[1:]), prod(slab.shape[axis + 1 :])
    offset, factor = (0, 1) if scaling is None else scaling
    job = np.zeros(1, _JOB)
    job["n_pixels"], job["run"] = n_pixels, (rows.stop - rows.start) * behind
    job["pitch"], job["first"] = slab.shape[axis] * behind, rows.start * behind
    job["plane"], job["n_planes"] = prod(slab.shape[1:]), len(slab)
    job["n_blocks"] = n_blocks = len(flags) // len(out)
    job["offset"], job["factor"], job["is_scaled"] = offset, factor, scaling is not None
    steps = [step for step in (factors, centers) if step is not None]
    with runtime.active():
        packed, offsets = pack(job, *steps)
        device = runtime.upload(packed)
        addresses = iter([runtime.pointer(device) + at for at in offsets])
        launch(
            runtime.kernel(
                "answer", "answer", {"OUT_TYPE": PIXEL_TYPES[out.dtype], "ARGMAX": int(argmax)}
            ),
            len(out) * n_blocks,
            (_THREADS,),
            [
                next(addresses),
                runtime.pointer(slab),
                0 if factors is None else next(addresses),
                0 if centers is None else next(addresses),
                runtime.pointer(out),
                runtime.pointer(flags),
            ],
            shared_bytes=4 * _THREADS,
        )
