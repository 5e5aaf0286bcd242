"""Files read as they are: whole, or any part of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gpu_patch.images.readers import Options, open_file
from gpu_patch.images.remarks import warn_of_remarks


def read_image(path, axes=None, *, keep_alpha=False):
    """The pixels of a file's first image and their axes, nothing moved or converted."""
    scene = 0 if Path(path).suffix.lower() in (".tif", ".tiff") else None
    options = Options(axes=axes, scene=scene, keep_alpha=keep_alpha)
    with open_file(Path(path), options)[0] as reader:
        warn_of_remarks([reader.info], stacklevel=1)
        return reader.whole(), reader.info.axes


def regions_agree(reader, data):
    """A reader gives what is in the file, whatever part of it is asked for."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        starts = [int(rng.integers(n)) for n in data.shape]
        key = tuple(
            slice(start, int(rng.integers(start, n)) + 1)
            for start, n in zip(starts, data.shape, strict=True)
        )
        assert np.array_equal(reader.select(key), data[key])
