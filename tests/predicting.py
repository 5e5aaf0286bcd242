"""Images of sizes that tiles do not divide, and their prediction tile by tile."""

from __future__ import annotations

import numpy as np
from pixels import distinct

import gpu_patch
from gpu_patch import predict

# sizes with one pixel left over, smaller than a tile, and of several layers; odd overlaps
TILINGS = {
    "2D": ((70, 45), (16, 16), (4, 6)),
    "wide": ((30, 131), (16, 16), (8, 4)),
    "tile larger": ((9, 40), (16, 12), (4, 4)),
    "one left over": ((33, 25), (16, 12), (0, 0)),
    "odd overlaps": ((50, 41), (15, 16), (5, 7)),
    "one pixel": ((1, 1), (4, 4), (2, 2)),
    "3D": ((9, 40, 21), (6, 16, 16), (2, 4, 6)),
    "3D, one plane": ((1, 30, 33), (4, 16, 16), (2, 4, 4)),
}


def make_stack(size, device="cpu", *, n_samples=2, n_channels=1, dtype="float32", seed=0):
    axes = "SCYX" if len(size) == 2 else "SCZYX"
    pixels = distinct((n_samples, n_channels, *size), dtype, seed)
    return gpu_patch.ImageStack.from_array(pixels, axes, device=device), pixels


def whole(images, model, tiling, **options):
    _, tile, overlaps = tiling
    return predict(images, model, tile_size=tile, overlaps=overlaps, progress=False, **options)


def to_device(array):
    import cupy

    return cupy.asarray(np.ascontiguousarray(array))
