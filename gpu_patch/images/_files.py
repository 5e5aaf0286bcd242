"""Reading image files; the packages that do it are imported where they are needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    if Path(path).suffix.lower() in (".tif", ".tiff"):
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
            axes = _known_axes(str(series.axes), data.shape)
    except OSError:
        raise
    # tifffile raises whatever a damaged file provokes, struct and zlib errors included
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a TIFF: {error}") from error
    if need_axes and not axes:
        raise ValueError(
            f"{path} does not say its axes: its shape is {data.shape}; "
            f"give axes, one letter of {AXES!r} per axis"
        )
    return data, axes


def _known_axes(axes: str, shape: tuple[int, ...]) -> str:
    """Translate tifffile's axes: S are colour samples there, I, Q and others are unknown."""
    axes = axes.replace("S", "C") if "C" not in axes else axes
    known = set(axes) <= set(AXES) and len(set(axes)) == len(axes) == len(shape)
    return axes if known else ""


def _read_picture(path: str | Path) -> NDArray[Any]:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ImportError(
            "reading PNG and JPEG files needs Pillow: pip install 'gpu_patch[io]'"
        ) from error
    try:
        with Image.open(path) as picture:
            # the indices of a palette are no intensities
            return np.asarray(picture.convert("RGB") if picture.mode == "P" else picture)
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is no image that can be read: {error}") from error
