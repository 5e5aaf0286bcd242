"""Reading image files as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gpu_patch.images.readers import ImageReader, Options, checked_path, tiff
from gpu_patch.images.readers.picture import PictureReader
from gpu_patch.images.remarks import warn_of_remarks


def read_image(
    path: str | Path, axes: str | None = None, *, keep_alpha: bool = False
) -> tuple[NDArray[Any], str]:
    """Read a TIFF, PNG or JPEG file and say its axes.

    Parameters
    ----------
    path : str or Path
        The file.
    axes : str or None, default None
        Its axes, where known; None takes what the file says.
    keep_alpha : bool, default False
        As in `open_images`.

    Returns
    -------
    data : array
        In the file's own data type.
    axes : str
        One letter of "STCZYX" per axis.
    """
    file = checked_path(path)
    reader: ImageReader
    if file.suffix.lower() in (".tif", ".tiff"):
        reader = tiff.open_all(file, Options(axes=axes, scene=0, keep_alpha=keep_alpha))[0]
    else:
        reader = PictureReader(file, Options(axes=axes, keep_alpha=keep_alpha))
    with reader:
        warn_of_remarks([reader.info], stacklevel=2)
        return reader.whole(), reader.info.axes
