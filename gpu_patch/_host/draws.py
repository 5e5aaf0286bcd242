"""Random numbers by counter, by the compiled generator."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpu_patch._host.arguments import address
from gpu_patch._host.library import DrawJob, Library


def draw(
    library: Library, words: NDArray[np.uint64], seed: int, epoch: int, index: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return two numbers per sample and block, (B, 2 · blocks); see `draws.draw`."""
    drawn = np.empty((len(index), 2 * len(words)))
    job = DrawJob(len(index), len(words), seed, epoch)
    arrays = (np.ascontiguousarray(index, np.int64), words, drawn)
    library.call("draw", job, *map(address, arrays))
    return drawn
