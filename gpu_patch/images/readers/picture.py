"""PNG and JPEG files by Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.images.readers._base import (
    ImageInfo,
    ImageReader,
    Key,
    Options,
    checked_level,
    chosen_scenes,
    reading,
)


class PictureReader(ImageReader):
    """A picture; it is decoded as a whole.

    Parameters
    ----------
    path : Path
        The file.
    options : Options
        Axes other than YX and YXC are unusual.
    """

    kind = "an image"

    def __init__(self, path: Path, options: Options) -> None:
        checked_level(path, options.level, 1)
        chosen_scenes(path, options.scene, [""])
        self._path = path
        with reading(path, self.kind), _pillow().open(path) as picture:
            # rawmodes like "RGB;16B": Pillow keeps the upper 8 of 16 bits per colour, silently
            if len(picture.getbands()) > 1 and ";16" in str(picture.tile):
                raise ValueError("colours of 16 bits would be cut to 8: save it as a TIFF")
            pixel = np.asarray(_without_palette(_pillow().new(picture.mode, (1, 1))))
            shape = (picture.height, picture.width, *pixel.shape[2:])
            name = str(picture.format)
        axes = options.axes or "YXC"[: len(shape)]
        super().__init__(
            ImageInfo(str(path), name, shape, axes, pixel.dtype, shape, files=(path,)), path
        )

    def _select(self, key: Key) -> NDArray[Any]:
        with _pillow().open(self._path) as picture:
            return np.asarray(_without_palette(picture))[key]


def open_all(path: Path, options: Options) -> list[ImageReader]:
    """Return the file's one image."""
    return [PictureReader(path, options)]


def _without_palette(picture: Any) -> Any:
    # the indices of a palette are no intensities; RGBA comes first for its transparency
    return picture.convert("RGBA").convert("RGB") if picture.mode == "P" else picture


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "reading PNG and JPEG files needs Pillow: pip install 'gpu_patch[io]'"
        ) from error
    return Image
