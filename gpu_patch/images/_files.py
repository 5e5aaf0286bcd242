"""Reading image files; the packages that do it are imported where they are needed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.errors import shorten
from gpu_patch.images._axes import AXES


def read_image(path: str | Path, axes: str | None = None) -> tuple[NDArray[Any], str]:
    """Read a TIFF, PNG or JPEG file and say its axes.

    Parameters
    ----------
    path : str or Path
        The file.
    axes : str or None, default: None
        Its axes, where known; None takes what the file says.

    Returns
    -------
    data : array
        In the file's own data type.
    axes : str
        One letter of "STCZYX" per axis.
    """
    if checked_path(path).suffix.lower() in (".tif", ".tiff"):
        data, found = read_tiff(path, need_axes=axes is None)
    else:
        data = _read_picture(path)
        found = "YXC" if data.ndim == 3 else "YX"
    return data, found if axes is None else axes


def read_tiff(path: str | Path, *, need_axes: bool) -> tuple[NDArray[Any], str]:
    """Read the first series of a TIFF file.

    Parameters
    ----------
    path : str or Path
        The file.
    need_axes : bool
        Whether it is an error that the file does not say its axes; otherwise "" is returned.

    Returns
    -------
    data : array
        In the file's own data type.
    axes : str
        One letter of "STCZYX" per axis, or "".
    """
    checked_path(path)
    try:
        import tifffile
    except ImportError as error:
        raise ImportError(
            "reading TIFF files needs tifffile: pip install 'gpu_patch[io]'"
        ) from error
    try:
        with tifffile.TiffFile(path) as tiff:
            if not tiff.series:
                raise ValueError("it has no image")
            series = tiff.series[0]
            data = np.asarray(series.asarray())
            axes = str(series.axes)
            if series.keyframe.samplesperpixel > 1:
                # tifffile's S are the colours of a pixel then, not samples
                axes = axes.replace("S", "C" if "C" not in axes else "?")
    except OSError:
        raise
    # tifffile raises whatever a damaged file provokes, struct and zlib errors included
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a TIFF: {error}") from error
    known = set(axes) <= set(AXES) and len(set(axes)) == len(axes) == data.ndim
    if need_axes and not known:
        raise ValueError(
            f"{path} does not say its axes: its shape is {data.shape}; "
            f"give axes, one letter of {AXES!r} per axis"
        )
    return data, axes if known else ""


def checked_path(path: object) -> Path:
    """Return `path` as one."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be a str or a pathlib.Path, found {shorten(path)}")
    return Path(path)


def _read_picture(path: str | Path) -> NDArray[Any]:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "reading PNG and JPEG files needs Pillow: pip install 'gpu_patch[io]'"
        ) from error
    try:
        with Image.open(path) as picture:
            # rawmodes like "RGB;16B": Pillow keeps the upper 8 of 16 bits per colour, silently
            if len(picture.getbands()) > 1 and ";16" in str(picture.tile):
                raise ValueError("colours of 16 bits would be cut to 8: save it as a TIFF")
            # the indices of a palette are no intensities; RGBA comes first for its transparency
            colours = picture.convert("RGBA").convert("RGB") if picture.mode == "P" else picture
            return np.asarray(colours)
    # Pillow has errors of its own for damaged files and for those that are suspiciously large
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{path} is no image that can be read: {error}") from error
