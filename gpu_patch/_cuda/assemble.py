"""Windows copied out of chunks, in one launch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch._cuda.runtime import Runtime, launch
from gpu_patch.chunks.image import ChunkKey
from gpu_patch.chunks.windows import ChunkCopy
from gpu_patch.table import pack

_ROWS = 32
"""Rows per block, ROWS in assemble.cu."""

COPY = np.dtype(
    [
        ("source", np.uint64),
        ("destination", np.uint64),
        ("size", np.int64, 4),
        ("source_step", np.int64, 4),
        ("destination_step", np.int64, 3),
        ("first_block", np.int64),
        ("pixel_bytes", np.int64),
    ]
)
"""`struct BoxCopy`."""


def assemble(
    runtime: Runtime,
    copies: Sequence[ChunkCopy],
    chunks: Mapping[ChunkKey, Any],
    arrays: Sequence[Any],
) -> None:
    """Fill the images of a batch; see `ops.assemble`."""
    with runtime.active():
        records = copy_records(runtime, copies, chunks, arrays)
        n_rows = records["size"][:, :3].prod(axis=1)
        blocks = -(-n_rows // _ROWS)
        records["first_block"] = np.cumsum(blocks) - blocks
        packed, offsets = pack(np.array([len(records)]), records)
        device = runtime.upload(packed)
        address = runtime.pointer(device)
        launch(
            runtime.kernel("assemble", "assemble", {}),
            int(blocks.sum()),
            (32, 8),
            [address + offset for offset in offsets],
        )


def copy_records(
    runtime: Runtime,
    copies: Sequence[ChunkCopy],
    chunks: Mapping[ChunkKey, Any],
    arrays: Sequence[Any],
) -> NDArray[np.void]:
    """Return `COPY` records, the first blocks not set.

    Raises
    ------
    IndexError
        Where a box leaves its array: the kernel does not check.
    """
    places = [(runtime.pointer(array), array.strides, array.shape) for array in arrays]
    sources = {key: (runtime.pointer(a), a.strides, a.shape) for key, a in chunks.items()}
    rows = []
    for group, cut, key, sample, axes in copies:
        address, steps, shape = places[group]
        inside = cut < shape[0]
        address += cut * steps[0]
        size, to, start, by = [], [], 0, []
        for stretch, step, n in zip(axes, steps[1:], shape[1:], strict=True):
            inside &= 0 <= stretch.at <= n - stretch.length
            address += stretch.at * step
            size.append(stretch.length)
            to.append(step)
        if key is None:
            by = [0] * len(axes)
        else:
            start, from_steps, from_shape = sources[key]
            inside &= sample < from_shape[0]
            start += sample * from_steps[0]
            for stretch, step, n in zip(axes, from_steps[1:], from_shape[1:], strict=True):
                last = stretch.first + stretch.step * (stretch.length - 1)
                inside &= 0 <= stretch.first < n and 0 <= last < n
                start += stretch.first * step
                by.append(stretch.step * step)
        if not inside:
            raise IndexError(f"{axes} leaves its chunk, or its cut of the shape {shape}")
        if len(axes) == 3:  # kernels know three axes: an image of two has one Z
            for column, one in ((size, 1), (to, 0), (by, 0)):
                column.insert(1, one)
        rows.append((start, address, *size, *by, *to[:3], 0, steps[-1]))
    # addresses fit int64: no device uses the upper half of the address space
    return np.array(rows, np.int64).view(COPY)[:, 0]
