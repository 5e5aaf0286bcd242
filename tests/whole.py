"""A file read whole, as the file has it."""

from __future__ import annotations

from pathlib import Path

from gpu_patch.images.readers import Options, open_file
from gpu_patch.images.remarks import warn_of_remarks


def read_image(path, axes=None, *, keep_alpha=False):
    """The pixels of a file's first image and their axes, nothing moved or converted."""
    scene = 0 if Path(path).suffix.lower() in (".tif", ".tiff") else None
    options = Options(axes=axes, scene=scene, keep_alpha=keep_alpha)
    with open_file(Path(path), options)[0] as reader:
        warn_of_remarks([reader.info], stacklevel=1)
        return reader.whole(), reader.info.axes
