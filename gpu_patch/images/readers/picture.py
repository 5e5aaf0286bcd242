"""PNG and JPEG files by Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.images.readers.base import ImageReader, Key
from gpu_patch.images.readers.choices import checked_level, chosen_scenes
from gpu_patch.images.readers.info import Options, alpha_left_out, described
from gpu_patch.images.readers.paths import reading
from gpu_patch.optional import imported


class PictureReader(ImageReader):
    """A picture; it is decoded as a whole.

    Parameters
    ----------
    path : Path
        The file.
    options : Options
        Axes other than YX and YXC contradict the file.
    """

    kind = "an image"

    def __init__(self, path: Path, options: Options) -> None:
        checked_level(path, options.level, 1)
        chosen_scenes(path, options.scene, [""])
        self._path = path
        with reading(path, self.kind), _pillow().open(path) as picture:
            # Pillow keeps only the upper 8 bits of colours of 16 bits (raw modes such as "RGB;16B")
            if len(picture.getbands()) > 1 and ";16" in str(picture.tile):
                raise ValueError("colours of 16 bits would be cut to 8: save it as a TIFF")
            self._mode = _mode(picture, keep_alpha=options.keep_alpha)
            pixel = np.asarray(_pillow().new(self._mode, (1, 1)))
            shape = (picture.height, picture.width, *pixel.shape[2:])
            name = str(picture.format)
            leaves_out = _has_alpha(picture) and not options.keep_alpha
        info = described(
            str(path),
            name,
            "YXC"[: len(shape)],
            shape,
            options,
            dtype=pixel.dtype,
            chunk_shape=shape,
            files=(path,),
            colours=self._mode if self._mode in ("RGB", "RGBA") else "",
            remarks=[alpha_left_out()] * leaves_out,
        )
        super().__init__(info, path, shape)

    def _select(self, key: Key) -> NDArray[Any]:
        with _pillow().open(self._path) as picture:
            if picture.mode == "P":  # RGBA comes first for its transparency
                picture = picture.convert("RGBA")
            if picture.mode != self._mode:
                picture = picture.convert(self._mode)
            return np.asarray(picture)[key]


def open_all(path: Path, options: Options) -> list[ImageReader]:
    """Return the file's one image."""
    return [PictureReader(path, options)]


def _has_alpha(picture: Any) -> bool:
    """Tell whether a picture says which of its pixels are transparent."""
    by_colour = picture.mode in ("P", "L", "RGB") and "transparency" in picture.info
    return by_colour or picture.getbands()[-1] in ("A", "a")


def _mode(picture: Any, *, keep_alpha: bool) -> str:
    """Return Pillow's mode that the pixels are read in: grey or colours, not indices of a palette.

    A palette is in the head of the file, so that nothing is decoded for it.
    """
    mode = str(picture.mode)
    if mode == "P":
        colours = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
        mode = "L" if (colours == colours[:, :1]).all() else "RGB"
    elif not _has_alpha(picture):
        return mode
    mode = {"LA": "L", "La": "L", "PA": "RGB", "RGBA": "RGB", "RGBa": "RGB"}.get(mode, mode)
    return mode + "A" * (keep_alpha and _has_alpha(picture))


def _pillow() -> Any:
    return imported("PIL.Image", "reading PNG and JPEG files")
