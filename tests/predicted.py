"""Images to predict and a model, the same in every process."""

from __future__ import annotations

import numpy as np
from pixels import distinct

import gpu_patch

OPTIONS = {
    "tile_size": (32, 32),
    "overlaps": (8, 8),
    "multiscale_count": 2,
    "chunk_size": (32, 64),
    "blend": "hann",
    "model_id": "twice as many channels",  # whether it takes its time or not
}


def make_images():
    """Tall, wide, several samples, and smaller than a tile."""
    shapes = {"YX": (230, 90), "XY": (250, 60), "TYX": (3, 70, 65), "SYX": (2, 20, 25)}
    return [
        gpu_patch.ImageStack.from_array(distinct(shape, "uint16", i), axes, device="cpu")
        for i, (axes, shape) in enumerate(shapes.items())
    ]


def model(x):
    """Twice as many channels, of values that tell where in the tile they are."""
    n = np.arange(x[0, 0].size, dtype=np.float32).reshape(x.shape[2:])
    return np.concatenate([x[:, :1] + n, x.mean(axis=1, keepdims=True) * n], axis=1)
