"""Windows of chunked images, copied out of their chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gpu_patch._numpy.assemble import assemble as numpy_assemble
from gpu_patch.chunks.image import ChunkKey
from gpu_patch.chunks.windows import ChunkCopy

if TYPE_CHECKING:
    from gpu_patch._cuda.runtime import Runtime


def assemble(
    runtime: Runtime | None,
    copies: Sequence[ChunkCopy],
    chunks: Mapping[ChunkKey, Any],
    arrays: Sequence[Any],
) -> None:
    """Fill the images that a batch reads.

    Parameters
    ----------
    runtime : Runtime or None
        What runs kernels on the chunks; None where NumPy copies.
    copies : sequence of ChunkCopy
        What to copy, as `chunks.windows.plan_cuts` plans it.
    chunks : mapping of ChunkKey to array, SC(Z)YX
        Those that the copies name.
    arrays : sequence of array, SC(Z)YX
        What is filled: the images of `Cuts.groups`, where the chunks are.
    """
    if runtime is None:
        numpy_assemble(copies, chunks, arrays)
    else:
        from gpu_patch._cuda.assemble import assemble as cuda_assemble

        cuda_assemble(runtime, copies, chunks, arrays)
