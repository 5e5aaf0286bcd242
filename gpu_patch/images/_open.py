"""Opening images of any format in one call."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpu_patch import device as devices
from gpu_patch.errors import shorten
from gpu_patch.images._axes import AXES
from gpu_patch.images._budget import make_budget, size_text
from gpu_patch.images._extractor import PatchExtractor
from gpu_patch.images._stack import ImageStack
from gpu_patch.images.readers import SUFFIXES, ImageReader, Options, is_image, open_file
from gpu_patch.images.readers.array import ArrayReader
from gpu_patch.progress import progress_bar


def open_images(
    images: Any,
    axes: str | None = None,
    *,
    device: str | None = None,
    memory_budget: float | None = None,
    level: int = 0,
    scene: int | str | None = None,
    read_func: Callable[[Path], Any] | None = None,
    allow_missing_chunks: bool = False,
    progress: bool = True,
) -> PatchExtractor:
    """Open image files, or arrays, and keep them in the memory of a device.

    TIFF (OME, ImageJ, BigTIFF), OME-Zarr 0.4 and 0.5, Zarr, CZI, .npy, PNG and JPEG; each needs
    its own package, and asks for it by name.

    Parameters
    ----------
    images : path, array, or sequence of them
        A file; a pattern such as ``"data/*.tif"``; a folder, for all images in it; an array, or
        anything with `shape`, `dtype` and slices. Patterns and folders go by name.
    axes : str or None, default: None
        Axes of every image, one letter of "STCZYX" each; None takes those that the file says.
    device : str or None, default: None
        Where to keep them; see `gpu_patch.device.resolve`.
    memory_budget : int, float or None, default: None
        What they may take: bytes, or a float in (0, 1] as a fraction of what is free. None is 0.8.
    level : int, default: 0
        Resolution level, of OME-Zarr and of TIFF pyramids.
    scene : int, str or None, default: None
        Which image of a file that has several (scenes, series): its number or name, or "all".
        None is an error there.
    read_func : callable or None, default: None
        Takes a path and returns an array; reads every file instead of gpu_patch's readers.
    allow_missing_chunks : bool, default: False
        Whether chunks of Zarr and TIFF that were never written are their fill value. They cannot
        be told from chunks that got lost, so that they are an error otherwise.
    progress : bool, default: True
        Whether to show a bar where it takes more than a second and tqdm is installed.

    Returns
    -------
    PatchExtractor
        One image stack per image, in order.

    Raises
    ------
    OSError, ValueError
        A file cannot be read, or does not say its axes; the message names it. Nothing stays in
        memory.
    MemoryError
        The images do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> open_images(np.zeros((5, 2, 64, 96), np.uint16), "SCYX", device="cpu").shapes
    [(5, 2, 64, 96)]
    """
    options = Options(axes, level, scene, allow_missing_chunks)
    readers: list[ImageReader] = []
    try:
        for i, source in enumerate(sources(images, any_file=read_func is not None)):
            readers += (
                open_file(source, options, read_func)
                if isinstance(source, Path)
                else [ArrayReader(source, f"images[{i}]", options)]
            )
        return PatchExtractor(make_stacks(readers, device, memory_budget, progress=progress))
    finally:
        for reader in readers:
            reader.close()
        readers.clear()


def sources(images: Any, *, any_file: bool = False) -> list[Any]:
    """Return what `open_images` was given as paths and arrays, one by one.

    Parameters
    ----------
    images : path, array, or sequence of them
        As in `open_images`.
    any_file : bool, default: False
        Whether every file in a folder counts, and not only those with the ending of an image.
    """
    if isinstance(images, (list, tuple)):
        found = [source for item in images for source in sources(item, any_file=any_file)]
        if not found:
            raise ValueError("images is empty: at least one file or array is needed")
        return found
    if not isinstance(images, (str, os.PathLike)):
        if images is None or isinstance(images, (bool, int, float, bytes, dict, set)):
            raise TypeError(
                f"images must be a path, an array or a sequence of them, found {shorten(images)}"
            )
        return [images]
    path = Path(images)
    if not path.exists() and glob.has_magic(str(path)):
        matching = sorted(map(Path, glob.glob(str(path), recursive=True)))
        if not matching:
            raise FileNotFoundError(f"no file matches {str(path)!r}")
        return list(matching)
    if not path.is_dir() or path.suffix.lower() == ".zarr" or is_image(path):
        return [path]
    inside = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    kept = [entry for entry in inside if is_image(entry) or (any_file and entry.is_file())]
    if not kept:
        raise FileNotFoundError(
            f"the folder '{path}' has no image in it ({', '.join(SUFFIXES)}): name what is deeper "
            "with a pattern such as '**/*.tif'"
        )
    return list(kept)


def make_stacks(
    readers: Sequence[ImageReader],
    device: str | None,
    memory_budget: float | None = None,
    *,
    progress: bool = False,
) -> list[ImageStack]:
    """Return the images as stacks, resident whole; all of them or none.

    Parameters
    ----------
    readers : sequence of ImageReader
        They are closed one by one.
    device : str or None
        As in `open_images`; arrays that are on a CUDA device stay there where it is None.
    memory_budget : int, float or None, default: None
        As in `open_images`.
    progress : bool, default: False
        Whether to show a bar.

    Raises
    ------
    MemoryError
        They do not fit.
    """
    where = [_target(reader, device) for reader in readers]
    for name in sorted(set(where)):
        here = [r for r, target in zip(readers, where, strict=True) if target == name]
        check_budget(here, name, memory_budget)
    stacks: list[ImageStack] = []
    try:
        total = sum(reader.info.nbytes for reader in readers)
        label = f"reading {len(readers)} image{'s' * (len(readers) > 1)}"
        with progress_bar(label, total, "B", unit_scale=True, wanted=progress) as advance:
            for reader, target in zip(readers, where, strict=True):
                stacks.append(ImageStack.from_reader(reader, device=target, progress=advance))
                reader.close()
    except BaseException:
        # tracebacks keep the variables of functions alive, in notebooks for long
        stacks.clear()
        raise
    return stacks


def check_budget(
    readers: Sequence[ImageReader], device: str, memory_budget: float | None = None
) -> None:
    """Raise a MemoryError where the images do not fit in the memory that they may take."""
    budget = make_budget(device, memory_budget)
    needed = {reader: reader.info.nbytes for reader in readers if not _in_place(reader, device)}
    total = sum(needed.values())
    if budget.holds(total):
        return
    largest = max(needed, key=lambda reader: needed[reader])
    free = "" if budget.free is None else f", {size_text(budget.free)} are free"
    raise MemoryError(
        f"{len(needed)} image(s) need {size_text(total)} on {device}, but may take "
        f"{size_text(budget.limit or 0)}{free}. The largest is {largest.info.path} with "
        f"{size_text(needed[largest])}. Open fewer, a coarser level, or raise memory_budget"
    )


def _target(reader: ImageReader, device: str | None) -> str:
    if device is None and devices.is_cuda_array(reader.resident):
        return f"cuda:{reader.resident.device.id}"
    return devices.resolve(device)


def _in_place(reader: ImageReader, device: str) -> bool:
    """Tell whether an image takes no memory beyond what it has already."""
    array, info = reader.resident, reader.info
    if array is None or devices.is_cuda_array(array) != (device != "cpu"):
        return False
    ordered = array.transpose([info.axes.index(axis) for axis in AXES if axis in info.axes])
    return bool(ordered.flags.c_contiguous and array.dtype == info.resident_dtype)
