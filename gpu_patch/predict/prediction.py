"""`predict`: checks its arguments, and runs a model over whole images, tile by tile."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from numpy.typing import DTypeLike

from gpu_patch.checks import instance, sequence
from gpu_patch.chunks import ChunkedImage
from gpu_patch.feed.normalization import Normalization
from gpu_patch.geometry import PaddingMode
from gpu_patch.images import ImageStack, PatchExtractor
from gpu_patch.predict.answers import Answer
from gpu_patch.predict.code import version_of
from gpu_patch.predict.digests import of_planes
from gpu_patch.predict.identity import identify
from gpu_patch.predict.model import is_module, modes, modes_of, running
from gpu_patch.predict.options import PredictOptions
from gpu_patch.predict.outputs import OutputOptions, Shard, open_store
from gpu_patch.predict.remarks import (
    equal_samples,
    evaluating_samples,
    not_finite,
    unknown_model,
    warn,
)
from gpu_patch.predict.results import Results
from gpu_patch.predict.schedule import share_of
from gpu_patch.predict.worker import TilePredictor


class Prediction(NamedTuple):
    """What `predict` returns.

    Attributes
    ----------
    images : list of array or Path
        Per image stack the prediction: the array, in the axes of the image as given, or the path
        where it is.
    std : list of array or Path, or None
        Per image stack the standard deviation of the values that a pixel is the mean of; None where
        it is not asked for, as with one sample.
    """

    images: list[Any]
    std: list[Any] | None


def predict(
    images: PatchExtractor | ImageStack | Sequence[PatchExtractor | ImageStack],
    model: Callable[[Any], Any],
    *,
    tile_size: Sequence[int],
    overlaps: Sequence[int],
    batch_size: int = 16,
    multiscale_count: int | None = None,
    padding_mode: PaddingMode = "reflect",
    blend: str = "crop",
    tiling: str = "inner",
    n_draws: int | None = None,
    stride: Sequence[int] | None = None,
    n_samples: int = 1,
    std: bool | None = None,
    training_mode: str | None = None,
    normalization: Normalization | None = None,
    reduce: str | Sequence[float] | None = None,
    channels: Sequence[int] | None = None,
    dtype: DTypeLike | None = None,
    scale_factor: float = 1.0,
    add_offset: float = 0.0,
    out: str | os.PathLike[str] | None = None,
    format: str | None = None,
    channel_names: Sequence[str] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    model_id: str | None = None,
    rank: int = 0,
    world_size: int = 1,
    chunk_size: Sequence[int] | None = None,
    shard_size: Sequence[int] | None = None,
    timeout: float = 1800.0,
    durable: bool = False,
    progress: bool = True,
) -> Prediction:
    """Run a model over whole images, tile by tile.

    Tiles are cut out, given to the model in batches and put together where the images are. Of the
    prediction only a slab is there at a time, a few tiles high; what is complete goes to the host
    and to `out` while the next batch is made.

    Parameters
    ----------
    images : PatchExtractor, ImageStack, or sequence of them
        All 2D or all 3D, with as many channels each, on one device. Of those with pixels that are
        NaN or infinite a warning says how many, at the end.
    model : torch.nn.Module or callable
        Takes a batch (B, L, (Z), Y, X), or (B, C, (Z), Y, X) without context, and returns tiles of
        the same size with any number of channels. A torch module, scripted and exported ones too,
        gets a tensor, without gradients and in the modes that `training_mode` says. Anything else
        is called with NumPy's or CuPy's array, and may return an array or tensor of any library.
        It may change what it is given.
    tile_size : sequence of int
        Pixels of a tile, (Z)YX. Larger ones than the image are zero beyond it, or what
        `padding_mode` says where there is context.
    overlaps : sequence of int
        Pixels that neighbouring tiles share, (Z)YX, 0 ≤ overlap < tile.
    batch_size : int, default 16
        Tiles per batch; the last batch may have fewer.
    multiscale_count : int or None, default None
        Number of scales of the lateral context, see `PredMsPatchConstr`; None gives plain tiles of
        all channels.
    padding_mode : {"reflect", "wrap", "periodic"}, default "reflect"
        What the context holds beyond the image.
    blend : {"crop", "hann", "gaussian"}, default "crop"
        How tiles become an image: half of each overlap is cut off, as in careamics, or the tiles
        are averaged with weights that fall off towards their edges.
    tiling : {"inner", "switi"}, default "inner"
        Where tiles lie: side by side, or shifted by a stride, so that every pixel is the mean of
        many tiles, each without half of its overlap, and no seams remain (sliding-window inner
        tiling, arXiv 2607.18990, see `SwitiPatching`). All tiles at a pixel count alike; sums are
        float64.
    n_draws : int or None, default None
        Of "switi": how many tiles a pixel gets at least, from which `stride_for` finds the stride;
        None is 64.
    stride : sequence of int or None, default None
        Of "switi", instead of that: pixels from a tile to the next, (Z)YX.
    n_samples : int, default 1
        How often the model sees each batch. From 2 on, for models that draw at random, the result
        is the mean, and the standard deviation comes with it. Where that is 0 everywhere, a
        warning says so.
    std : bool or None, default None
        Whether the standard deviation is wanted, of all samples, and with "switi" of all tiles at a
        pixel, with n − 1 in the denominator as in `torch.std`. None is where there are several
        samples.
    training_mode : {"eval", "keep"} or None, default None
        Modes of a torch module during the run; afterwards they are as before. None puts a module
        that is in training mode as a whole into evaluation mode (with a warning where there are
        several samples, which may then be equal), and leaves one in evaluation mode as it is: parts
        of it that were put into training mode, such as dropout that is to be sampled, stay so.
        "eval" puts all parts into evaluation mode, "keep" leaves all as they are.
    normalization : Normalization or None, default None
        Applied to the tiles; what the model returns is taken back as `Normalization.denormalize`
        does.
    reduce : "argmax", sequence of float, or None, default None
        What becomes of what the model returns, where the images are, before anything is copied from
        there. None is the mean of samples and tiles. "argmax" is the number of the channel whose
        mean is the largest, of equal ones the first: a label image with one channel, whose levels
        of resolution are pixels of it. Numbers in 0 … 1 are quantiles of `n_samples` (exact, as
        `numpy.quantile` interpolates them; `tiling="inner"` and `blend="crop"` alone): all those of
        the first channel, then those of the next. All samples of a batch are kept for them:
        4 bytes × n_samples × batch_size × channels × pixels of a tile, which is checked before
        anything is written.
    channels : sequence of int or None, default None
        Channels of the model that count, in this order; None is all. Labels of "argmax" count
        them from 0.
    dtype : data type or None, default None
        Of the result: float32, float16, or uint8, int8, uint16 or int16, for which values are
        rounded to the nearest (half to even) and cut to the range; None is float32, and for labels
        the smallest of uint8 and uint16 that has their numbers. Standard deviations are float32.
    scale_factor, add_offset : float, default 1 and 0
        With a `dtype` of whole numbers or float16: stored is ``(value - add_offset) /
        scale_factor``, so that ``stored * scale_factor + add_offset`` is the value again. Kept in
        the metadata, under these names: of arrays in OME-Zarr, where xarray applies them by itself,
        and of OME-TIFF as description. A .npy file has none.
    out : path or None, default None
        Where the result goes. None is arrays in memory. For one image a path that ends in
        .ome.zarr, .zarr, .ome.tif, .tif or .npy; else a folder, which is made, with a file named
        after each image. Files take their name when they are complete.
    format : {"ome-zarr", "ome-tiff", "npy"} or None, default None
        Of the files in a folder; None is "ome-zarr".
    channel_names : sequence of str or None, default None
        What the model's channels, those of `channels` where it is given, are called in OME-Zarr and
        OME-TIFF; of "argmax", the labels. None leaves them without names. Pixel sizes, position and
        time interval are those of the image.
    overwrite : bool, default False
        Whether to replace files that are there, once the new ones are complete; links themselves,
        not what they lead to, and never the images that are read.
    resume : bool, default False
        Whether to go on where an earlier run with the same arguments ended (OME-Zarr alone). What
        another model, other arguments, another version of gpu_patch or other files made, by size
        and date, is refused, and the error says what differs; with `overwrite` it is made anew.
    model_id : str or None, default None
        What tells the model from others where a run is gone on with, such as a version, or a digest
        of its file. None is what shows: a torch module's classes, settings and weights; a
        function's code, its defaults, and what it closes over or reads from its module; code of
        installed packages by their version. Whatever running the model changes, such as a counter,
        does not count. Where nothing shows, as of a session of another library, `resume` warns.
    rank, world_size : int, default 0 and 1
        This process, and how many there are (OME-Zarr alone). Each predicts other rows of chunks,
        and all of them return when all files are complete.
    chunk_size, shard_size : sequence of int or None, default None
        (Z)YX, of OME-Zarr.
    timeout : float, default 1800
        Seconds without a sign of the other processes after which waiting for them is an error.
    durable : bool, default False
        Whether what counts as written has reached the disk (fsync of files and folders). It then
        survives that the machine stops: what was killed is resumed without a chunk missing, and a
        result with its name is whole. Without, that holds where the process alone is killed.
    progress : bool, default True
        Whether to show a bar where it takes more than a second and tqdm is installed.

    Returns
    -------
    Prediction
        (images, std), a result per image stack.

    Raises
    ------
    ValueError
        For values out of range, where the model returns anything but a tile for each that it gets,
        where it is on another device than the images, and for values that are not finite where
        `dtype` is of whole numbers, or NaN for labels.
    MemoryError
        Where there is no room; of samples that quantiles need, with the batch size that fits.
    FileExistsError
        Where there is a file already, or where one would have to replace a folder or a folder a
        file; before anything is predicted.
    BlockingIOError
        Where another run is writing one of the files; the message names its process.

    Notes
    -----
    After an error or Ctrl-C nothing half done is left but what `resume` goes on with. SIGTERM ends
    a Python process without that, unless a handler raises:
    ``signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))``.

    A run marks what it writes by a hidden file in the folder, ``.gpu_patch-….run``, that is locked
    (flock) as long as its process lives.

    Examples
    --------
    >>> import numpy as np
    >>> import gpu_patch
    >>> image = np.arange(600 * 800, dtype=np.float32).reshape(600, 800)
    >>> images = gpu_patch.ImageStack.from_array(image, "YX", device="cpu")
    >>> found = predict(images, lambda x: x + 1, tile_size=(256, 256), overlaps=(64, 64))
    >>> np.array_equal(found.images[0], image + 1)
    True
    >>> def brighter(x):
    ...     return np.concatenate([x, 480000 - x], axis=1)  # two channels: of what, and of its rest
    >>> found = predict(
    ...     images, brighter, tile_size=(256, 256), overlaps=(64, 64), reduce="argmax"
    ... )
    >>> found.images[0].dtype, np.array_equal(found.images[0], image < 240000)
    (dtype('uint8'), True)
    """
    extractor = _as_extractor(images)
    options = PredictOptions(
        extractor.n_spatial_dims,
        tile_size,
        overlaps,
        batch_size,
        multiscale_count,
        padding_mode,
        blend,
        tiling,
        n_draws,
        stride,
        n_samples,
        std,
        training_mode,
        normalization,
        Answer(reduce, channels, dtype, scale_factor, add_offset),
        channel_names,
        model_id,
    )
    output = OutputOptions(out, format, overwrite, resume, chunk_size, shard_size, timeout, durable)
    return _predict_images(
        extractor, model, options, output, Shard(rank, world_size), progress=progress
    )


def _predict_images(
    images: PatchExtractor,
    model: Callable[[Any], Any],
    options: PredictOptions,
    output: OutputOptions,
    shard: Shard,
    *,
    progress: bool,
) -> Prediction:
    """Run a model over images, of which this process predicts its share."""
    constructor, grids = options.constructor(images), options.grids(images)
    stacks, variants = images.image_stacks, options.variants
    with (
        modes(model, options.training_mode) as evaluating,
        running(model, images.device, options.axes_of_batches) as tiles_of,
    ):
        if evaluating and options.n_samples > 1:
            warn(evaluating_samples())
        store = open_store(
            output,
            shard,
            [stack.source for stack in stacks],
            variants=variants,
            fingerprint=lambda: _fingerprint(model, options, resume=output.resume),
            versions=lambda: [_version(stack) for stack in stacks],
            files=[stack.files for stack in stacks],
        )
        results = Results(
            store, stacks, grids, variants, options.answer, options.channel_names or ()
        )
        try:
            todo = results.todo()
            predictor = TilePredictor(constructor, tiles_of, options, grids, results)
            predictor.run(share_of(todo, shard), progress=progress and shard.is_first)
            if shard.is_first:
                for image in results.written:
                    results.open(image, predictor.n_channels)
                    results.finish(image)
            store.wait()
        except BaseException:
            try:
                results.close()
            finally:
                store.abandon()
            raise
        # of images that are read by chunk, this process knows the pixels that it has read
        seen = {unit.image for unit in todo if shard.is_first or images.cache is not None}
        if remark := not_finite([stacks[image] for image in sorted(seen)]):
            warn(remark)
    if results.deviates is False and shard.is_first and options.n_samples > 1:
        warn(equal_samples(options.n_samples, module=is_module(model)))
    return Prediction(results.all(""), results.all("_std") if "_std" in variants else None)


def _fingerprint(model: Any, options: PredictOptions, *, resume: bool) -> str:
    """Return what a run must share with another one that goes on with it, as JSON."""
    told: str | dict[str, str] | None = options.model_id
    if told is None:
        found = identify(model)
        told = found.parts
        if found.unknown and resume:
            warn(unknown_model(found.unknown))
    version = {"version of gpu_patch": version_of(__name__)}
    modes = {"training_mode": modes_of(model)}
    return json.dumps({**options.to_dict(), **modes, **version, "model": told})


def _version(stack: ImageStack) -> str:
    """Return what tells an image from others: its file's version, or the digest of an array."""
    parts = [stack.version]
    if (
        not stack.files
        and stack.version == str(stack.source)
        and not isinstance(stack.data, ChunkedImage)
    ):
        parts.append(f"digest {of_planes(stack.data).hex()[:16]}")
    return ", ".join([*parts, f"shape {stack.original_data_shape}, axes {stack.original_axes}"])


def _as_extractor(images: object) -> PatchExtractor:
    if isinstance(images, PatchExtractor):
        return images
    if isinstance(images, ImageStack):
        return PatchExtractor([images])
    stacks: list[Any] = []
    for item in sequence("images", images, "ImageStack, or an ImageStack or a PatchExtractor"):
        stacks += item.image_stacks if isinstance(item, PatchExtractor) else [item]
    if not stacks:
        raise ValueError("images is empty: at least one ImageStack is needed")
    for i, stack in enumerate(stacks):
        instance(f"images[{i}]", stack, ImageStack, "an ImageStack, as open_images gives them")
    return PatchExtractor(stacks)
