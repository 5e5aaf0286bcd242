"""Windows copied out of chunks, box by box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from gpu_patch.chunks.image import ChunkKey
from gpu_patch.chunks.windows import ChunkCopy


def assemble(
    copies: Sequence[ChunkCopy],
    chunks: Mapping[ChunkKey, NDArray[Any]],
    arrays: Sequence[NDArray[Any]],
) -> None:
    """Fill the images of a batch; see `ops.assemble`."""
    for group, cut, key, sample, axes in copies:
        place = arrays[group][cut][tuple([stretch.cut for stretch in axes])]
        if key is None:
            place[...] = 0
        else:
            place[...] = chunks[key][sample][tuple([stretch.source for stretch in axes])]
