"""Opening images of any format in one call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from gpu_patch import device as devices
from gpu_patch.checks import Message, argument, instance
from gpu_patch.chunks import ChunkedImage
from gpu_patch.images.agreement import check_images
from gpu_patch.images.axes import AXES
from gpu_patch.images.budget import Budget, make_budget, size_text
from gpu_patch.images.by_chunk import cache_within, check_chunk_fits
from gpu_patch.images.extractor import PatchExtractor
from gpu_patch.images.loading import read_together
from gpu_patch.images.opener import OpenedImage, Opener
from gpu_patch.images.readers import ImageReader, Options
from gpu_patch.images.readers.array import ArrayReader
from gpu_patch.images.regions import FileRegions
from gpu_patch.images.remarks import warn_of_remarks, warn_of_values
from gpu_patch.images.stack import ImageStack
from gpu_patch.images.values import ValueCounts, count_values, count_values_of
from gpu_patch.progress import progress_bar


def open_images(
    images: Any,
    axes: str | None = None,
    *,
    device: str | None = None,
    memory_budget: float | str | None = None,
    by_chunk: bool | None = None,
    level: int = 0,
    scene: int | str | None = None,
    read_func: Callable[[Path], Any] | None = None,
    allow_missing_chunks: bool = False,
    keep_alpha: bool = False,
    labels: bool = False,
    allow_outside: bool = False,
    check_values: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    cache_folder: str | Path | None = None,
    progress: bool = True,
) -> PatchExtractor:
    """Open image files, or arrays, and keep them in the memory of a device.

    TIFF (OME, ImageJ, BigTIFF), OME-Zarr 0.4 and 0.5, Zarr, also zipped (.ozx, .zarr.zip), CZI,
    ND2, LIF, .npy, PNG and JPEG, and what bioio has a plugin for; each needs its own package, and
    asks for it by name.

    Images that do not fit are kept by chunk: those that batches used last are in memory, others
    are read again when they are needed. Results are the same. `BatchLoader(order="sweep")` reads
    each about once an epoch, and `PatchExtractor.cache` tells what was read.

    A file that changes while it is read is an error. Zarr has no date of its own: that its metadata
    change is noticed, that its chunks are rewritten is not. Let nothing write to what is in use.

    Parameters
    ----------
    images : path, array, or sequence of them
        A file; a pattern such as ``"data/*.tif"``; a folder, for all images in it; the address of a
        Zarr, such as ``"s3://bucket/image.zarr"`` or ``"https://…"``; an array, or anything with
        `shape`, `dtype` and slices. Files of patterns and folders are in natural order: t2 before
        t10. Files of one image, such as an OME-TIFF with a file per time point, are opened together
        and once, whichever of them are named. Files that say nothing of each other are one image by
        a name with {s}, {t}, {c} or {z} for the axes that it counts: ``"data/t{t}_c{c}.tif"``. A
        file counts once, however many patterns and folders find it; named twice, it counts twice.
    axes : str or None, default None
        Axes of every file, one letter of "STCZYX" each; None takes those that the file says,
        without those of one pixel. A single Z is kept where other images have more slices, with a
        warning; naming it keeps it too. Axes that contradict a file are taken, with a warning.
    device : str or None, default None
        Where to keep them; see `gpu_patch.device.resolve`.
    memory_budget : int, float, str or None, default None
        What they may take: bytes, also as "8GB" or "8GiB", or a float in (0, 1] as a fraction of
        what is free. None is 0.8.
    by_chunk : bool or None, default None
        Whether to keep them by chunk; None is where they do not fit as a whole, with a warning
        unless `memory_budget` is given.
    level : int, default 0
        Resolution level, of OME-Zarr and of TIFF pyramids.
    scene : int, str or None, default None
        Which image of a file that has several (scenes, series): its number or name, or "all".
        None is an error there, except for a plate or a well, of which it opens all fields.
    read_func : callable or None, default None
        Takes a path and returns an array; reads every file instead of gpu_patch's readers.
    allow_missing_chunks : bool, default False
        Whether chunks of Zarr, pages, strips and tiles of TIFF and planes of CZI and ND2 that were
        never written are their fill value, and missing files of an image likewise. They cannot be
        told from what got lost, so that they are an error otherwise.
    keep_alpha : bool, default False
        Whether an alpha channel is a channel like the others. Otherwise it is left out, with a
        warning.
    labels : bool, default False
        Whether the images are labels: integers of any type stay what they are, and targets made
        of them too with `target_dtype="native"`. Otherwise those of 32 and 64 bits become float32.
    allow_outside : bool, default False
        Whether a file may have its pixels in files outside of its folder, which it names: for files
        whose makers you trust.
    check_values : bool, default False
        Whether to look for NaN, infinity, and samples whose pixels are all alike: counts per image
        are in `PatchExtractor.value_counts`, and a warning tells of them. Each value is looked at
        once, on the device; images that are kept by chunk are read as a whole for it.
    storage_options : dict or None, default None
        Of images on servers: what obstore's store takes, such as ``{"endpoint": …,
        "access_key_id": …, "secret_access_key": …, "client_options": {"read_timeout": "5s"}}``. Of
        S3, credentials of the environment are taken otherwise, and without any, none are sent.
    cache_folder : path or None, default None
        A folder of this machine that keeps chunks of images on servers, for the next time.
    progress : bool, default True
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
        The images do not fit as a whole and `by_chunk` is False, or not even a chunk of one does.

    Examples
    --------
    >>> import numpy as np
    >>> open_images(np.zeros((5, 2, 64, 96), np.uint16), "SCYX", device="cpu").shapes
    [(5, 2, 64, 96)]
    """
    options = Options(
        axes,
        level,
        scene,
        allow_missing_chunks,
        allow_outside=allow_outside,
        keep_alpha=keep_alpha,
        labels=bool(instance("labels", labels, bool, "True or False")),
    )
    with closing(Opener(options, read_func, storage_options, cache_folder)) as opener:
        found = opener.open_all(images)
        infos = [image.reader.info for image in found]
        check_images(infos)
        warn_of_remarks(infos, stacklevel=2)
        extractor = PatchExtractor(
            _make_stacks(found, device, memory_budget, by_chunk, progress=progress)
        )
        extractor.origins = [image.origin for image in found]
        if check_values:
            extractor.value_counts = _counted(found, extractor)
            warn_of_values(infos, extractor.value_counts, stacklevel=2)
        return extractor


def _make_stacks(
    images: Sequence[OpenedImage],
    device: str | None,
    memory_budget: float | str | None,
    by_chunk: bool | None,
    *,
    progress: bool,
) -> list[ImageStack]:
    """Return the images as stacks, all of them or none; see `open_images`."""
    if by_chunk is not None:
        instance("by_chunk", by_chunk, bool, "True, False or None")
    targets = [_target(image.reader, device) for image in images]
    budgets = {name: make_budget(name, memory_budget) for name in sorted(set(targets))}
    problem = ""
    for name, budget in budgets.items():
        here = [i.reader for i, target in zip(images, targets, strict=True) if target == name]
        problem = problem or _problem(here, budget)
    on_device = any(devices.is_cuda_array(image.reader.resident) for image in images)
    if by_chunk or (problem and by_chunk is None and not on_device):
        if on_device:
            raise ValueError("by_chunk is True, but images are on a CUDA device already")
        (budget,) = budgets.values()
        if not by_chunk and memory_budget is None:
            warnings.warn(
                f"{problem}. They are kept by chunk: training is slower, least so with "
                'BatchLoader(order="sweep"). Say by_chunk=True to silence this, or by_chunk=False '
                "for an error",
                stacklevel=3,
            )
        return _stacks_by_chunk(images, budget)
    if problem:
        ways = Message(". Open fewer, a coarser level, raise ", argument("memory_budget"))
        if by_chunk is not None:
            ways = Message(ways, ", or leave out ", argument("by_chunk", False))
        raise MemoryError(Message(problem, ways))
    return _resident_stacks(images, targets, progress=progress)


def _resident_stacks(
    images: Sequence[OpenedImage], targets: Sequence[str], *, progress: bool
) -> list[ImageStack]:
    stacks: list[ImageStack] = []
    try:
        total = sum(image.reader.info.nbytes for image in images)
        label = f"reading {len(images)} image{'s' * (len(images) > 1)}"
        with progress_bar(label, total, "B", unit_scale=True, wanted=progress) as advance:
            readers = [image.reader for image in images]
            with closing(read_together(readers, targets, advance)) as arriving:
                for reader, target, found in zip(readers, targets, arriving, strict=True):
                    stacks.append(
                        ImageStack.from_reader(reader, device=target, progress=advance, found=found)
                    )
                    reader.close()
    except BaseException:
        # a notebook keeps the last traceback, and that keeps these variables: free their memory now
        stacks.clear()
        found = None
        raise
    return stacks


def _stacks_by_chunk(images: Sequence[OpenedImage], budget: Budget) -> list[ImageStack]:
    """Return stacks that share one cache; all files are closed before they are read again."""
    infos = [image.reader.info for image in images]
    cache = cache_within(budget, sum(info.nbytes for info in infos))
    stacks = []
    for image in images:
        regions = FileRegions(image.reader, image.open_again)
        stack = ImageStack.by_chunk(regions, cache=cache, info=image.reader.info)
        check_chunk_fits(stack)
        stacks.append(stack)
    for image in images:
        if isinstance(image.reader, ArrayReader):
            image.is_in_use = True  # it would forget its array
    return stacks


def _counted(images: Sequence[OpenedImage], extractor: PatchExtractor) -> list[ValueCounts]:
    """Return what is wrong with the values of each image."""
    return [
        count_values_of(image.reader, stack.device)
        if isinstance(stack.data, ChunkedImage)
        else count_values(stack.data)
        for image, stack in zip(images, extractor.image_stacks, strict=True)
    ]


def _problem(readers: Sequence[ImageReader], budget: Budget) -> str:
    """Return what is wrong where the images do not fit in the memory that they may take."""
    needed = {
        reader: reader.info.nbytes for reader in readers if not _in_place(reader, budget.device)
    }
    total = sum(needed.values())
    if budget.holds(total):
        return ""
    largest = max(needed, key=lambda reader: needed[reader])
    free = "" if budget.free is None else f", {size_text(budget.free)} are free"
    return (
        f"{len(needed)} image(s) need {size_text(total)} on {budget.device}, but may take "
        f"{size_text(budget.limit or 0)}{free}. The largest is {largest.info.path} with "
        f"{size_text(needed[largest])}"
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
