"""``gpu-patch predict``: a trained model over whole images."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_patch import Prediction, open_images, predict
from gpu_patch import device as devices
from gpu_patch.cli.arguments import (
    Commands,
    add_budget,
    add_level,
    add_reading,
    folder,
    needs,
    patch_size,
    path_named,
    picture_file,
    readable,
    scene_named,
    whole,
)
from gpu_patch.cli.messages import in_options
from gpu_patch.cli.preview import report_images
from gpu_patch.cli.text import counted
from gpu_patch.feed import Normalization
from gpu_patch.geometry import PADDING_MODES
from gpu_patch.images import PatchExtractor
from gpu_patch.images.budget import DEFAULT_FRACTION, size_text
from gpu_patch.predict.model import TRAINING_MODES
from gpu_patch.predict.outputs.names import ending
from gpu_patch.tiling import BLENDS

_MOST_LINES = 4


def add_to(commands: Commands) -> None:
    """Add the command to a parser."""
    parser = commands.add_parser(
        "predict",
        help="run a trained model over whole images; needs PyTorch",
        description="Cut images into overlapping tiles, run a TorchScript or torch.export model "
        "on them, and put the results together. Under torchrun, processes share the work.",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a file, a pattern or a folder")
    parser.add_argument(
        "--model",
        type=path_named,
        required=True,
        metavar="FILE",
        help="of torch.jit (.pt) or torch.export (.pt2)",
    )
    parser.add_argument(
        "--out",
        type=path_named,
        required=True,
        metavar="DIR",
        help="folder for the results; or, for one IMAGE, a file that ends in .ome.zarr, "
        ".ome.tif or .npy",
    )
    parser.add_argument("--axes", help="axes of every IMAGE; default: what the file says")
    add_level(parser)
    parser.add_argument(
        "--scene", type=scene_named, help="number or name, where a file has several; or all"
    )
    add_reading(parser)
    tiles = parser.add_argument_group("tiles")
    tiles.add_argument(
        "--tile-size",
        type=patch_size,
        default=(256,),
        metavar="N",
        help="pixels: one number, Y,X or Z,Y,X; one number is limited to the depth along Z "
        "(default: 256)",
    )
    tiles.add_argument(
        "--overlaps",
        type=_overlaps,
        metavar="N",
        help="pixels that neighbours share, likewise; default: a quarter of the tile",
    )
    tiles.add_argument(
        "--batch-size", type=whole(1), default=16, metavar="N", help="default: %(default)s"
    )
    tiles.add_argument(
        "--scales",
        dest="multiscale_count",
        type=whole(1, 8),
        metavar="N",
        help="the tile and its surroundings, channels of the model's input; default: the image's "
        "channels without context",
    )
    tiles.add_argument(
        "--padding",
        dest="padding_mode",
        choices=PADDING_MODES,
        default="reflect",
        help="what the context holds beyond the image: %(choices)s (default: %(default)s)",
    )
    tiles.add_argument(
        "--blend",
        choices=BLENDS,
        default="crop",
        help="how tiles become an image: %(choices)s (default: %(default)s)",
    )
    tiles.add_argument(
        "--n-samples",
        type=whole(1),
        default=1,
        metavar="N",
        help="times that a stochastic model sees each tile; from 2 on the standard deviation is "
        "written too (default: %(default)s)",
    )
    tiles.add_argument(
        "--training-mode",
        choices=TRAINING_MODES,
        help="eval: all of a TorchScript model in evaluation mode; keep: as it was saved; default: "
        "eval where it was saved in training mode as a whole, else keep",
    )
    tiles.add_argument(
        "--normalization",
        type=path_named,
        metavar="FILE",
        help="what Normalization.save wrote; results are taken back to the values of images",
    )
    results = parser.add_argument_group("results")
    results.add_argument(
        "--dtype",
        default="float32",
        help="float32, float16, uint8, int8, uint16 or int16 (default: %(default)s)",
    )
    results.add_argument(
        "--format",
        choices=("ome-zarr", "ome-tiff", "npy"),
        help="of the files in DIR: %(choices)s (default: ome-zarr)",
    )
    results.add_argument(
        "--resume",
        action="store_true",
        help="go on where an earlier run ended (ome-zarr); with --overwrite what was made of other "
        "images or settings is made anew",
    )
    results.add_argument(
        "--overwrite", action="store_true", help="replace results that are there already"
    )
    results.add_argument(
        "--picture",
        type=path_named,
        metavar="FILE",
        help="picture of input and prediction (.png, .jpg, .pdf, .svg); default: prediction.png in "
        "DIR, or NAME_prediction.png beside one file NAME; numbered where that is there",
    )
    parser.add_argument("--device", help="cpu, cuda or cuda:N; default: a GPU where one is usable")
    add_budget(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    needs("predict", "torch", "torch")
    for module in ("tqdm", "matplotlib.figure"):
        needs("predict", module)
    # these import what may be missing
    models, predicted, training = (
        importlib.import_module(f"gpu_patch.cli.{name}")
        for name in ("models", "predicted", "training.loop")
    )
    rank, world_size = (_environment(name, n) for name, n in (("RANK", 0), ("WORLD_SIZE", 1)))
    device = _device(options.device)
    training.use_device(device)
    normalization = None
    if options.normalization is not None:
        normalization = Normalization.load(readable("--normalization", options.normalization))
    _check_picture(options)
    folder("--out", options.out if ending(options.out.name) is None else options.out.parent)
    _check_apart(options.images, options.out)
    model_id = _digest(readable("--model", options.model))
    model = models.load_model(options.model, device)
    images = open_images(
        options.images,
        options.axes,
        device=device,
        # given, so that nobody is warned of images that are kept by chunk: here it is no loss
        memory_budget=options.memory_budget or DEFAULT_FRACTION,
        level=options.level,
        scene=options.scene,
        allow_missing_chunks=options.allow_missing_chunks,
        keep_alpha=options.keep_alpha,
        allow_outside=options.allow_outside,
    )
    _check_channels(images, options.multiscale_count)
    tile_size = _sizes("--tile-size", options.tile_size, images)
    overlaps = (
        tuple(n // 8 * 2 for n in tile_size)
        if options.overlaps is None
        else _sizes("--overlaps", options.overlaps, images)
    )
    if rank == 0:
        report_images(images.image_stacks)
        if images.cache is not None:
            print(f"         kept by chunk in {size_text(images.cache.budget)}")
    start = time.perf_counter()
    counting = models.Counting(model)
    try:
        found = predict(
            images,
            counting,
            tile_size=tile_size,
            overlaps=overlaps,
            batch_size=options.batch_size,
            multiscale_count=options.multiscale_count,
            padding_mode=options.padding_mode,
            blend=options.blend,
            n_samples=options.n_samples,
            training_mode=options.training_mode,
            normalization=normalization,
            dtype=options.dtype,
            out=options.out,
            format=options.format,
            resume=options.resume,
            model_id=model_id,
            overwrite=options.overwrite,
            rank=rank,
            world_size=world_size,
        )
    except KeyboardInterrupt:
        known = ending(options.out.name)
        if rank == 0 and (known[1] if known else options.format or "ome-zarr") == "ome-zarr":
            again = "--resume --overwrite" if options.overwrite else "--resume"
            print(f"stopped  {again} goes on with what is written")
        raise
    except Exception as error:
        if hasattr(error, "__notes__"):  # it is from the model
            raise _explained(error, options, models, model, images, tile_size) from error
        raise
    if rank:
        return
    seconds = time.perf_counter() - start
    n_tiles = counting.n_tiles // options.n_samples
    # which counted its own alone
    by = f" by the first of {world_size} processes" if world_size > 1 else ""
    if n_tiles:
        print(f"tiles    {n_tiles} in {seconds:.1f} s{by}, {n_tiles / seconds:.1f} tiles/s")
    else:
        print(f"tiles    none left to do{by}: all its results are complete")
    report_results(found)
    words = [f"tiles of {_times(tile_size)} pixels, {_times(overlaps)} shared"]
    words += [f"blend {options.blend}"]
    if options.multiscale_count:
        words += [f"{counted(options.multiscale_count, 'scale')}, padding {options.padding_mode}"]
    if options.n_samples > 1:
        words += [f"mean of {options.n_samples} samples"]
    if normalization is None:
        words += ["not normalised"]
    picture = _picture(options)
    width, height = predicted.draw(
        images.image_stacks, found, f"{options.model.name}: {', '.join(words)}", picture
    )
    print(f"picture  {picture} ({width}×{height} pixels, {picture.stat().st_size / 1e3:.0f} kB)")
    if normalization is None:
        print("note     no --normalization: the model got the values of the images as they are")


def report_results(found: Prediction) -> None:
    """Print where results are."""
    paths = [path for pair in zip(*filter(None, found), strict=True) for path in pair]
    for path in paths[:_MOST_LINES]:
        print(f"written  {path}")
    if len(paths) > _MOST_LINES:
        print(f"         and {len(paths) - _MOST_LINES} more")


def _explained(
    error: Exception,
    options: argparse.Namespace,
    models: Any,
    model: Any,
    images: PatchExtractor,
    tile_size: tuple[int, ...],
) -> Exception:
    """Return an error that says how the model and its input differ."""
    has_context = options.multiscale_count is not None
    tiles = models.Tiles(
        options.batch_size, options.multiscale_count or images.n_channels, tile_size
    )
    reason = models.misfit(model, tiles, has_context=has_context)
    if not reason:
        given = in_options(error.__notes__[-1], options.parser.options)
        reason = f"{given}: {str(error).strip().splitlines()[-1]}"
    return ValueError(f"argument --model: '{options.model}' does not fit: {reason}")


def _check_channels(images: PatchExtractor, n_scales: int | None) -> None:
    """Raise where context is asked for, of images that can have none."""
    if n_scales is not None and images.n_channels > 1:
        raise ValueError(
            f"argument --scales: context is for images with 1 channel, found "
            f"'{images.image_stacks[0].source}' with {images.n_channels}: leave --scales out where "
            f"the model takes {images.n_channels} channels, or give images of one of them"
        )


def _check_apart(images: Sequence[str], out: Path) -> None:
    """Raise where results would be images of the next run."""
    for image in images:
        if out.is_dir() and Path(image).is_dir() and out.samefile(image):
            raise ValueError(
                f"argument --out: '{out}' is the folder of the images, where results would be "
                f"taken for images too: give another, such as '{out / 'predicted'}'"
            )


def _check_picture(options: argparse.Namespace) -> None:
    """Raise where the picture that is asked for cannot be written, or is another one already."""
    if options.picture is None:
        return
    if picture_file("--picture", options.picture).exists() and not options.overwrite:
        raise ValueError(
            f"argument --picture: '{options.picture}' is there already: give another, or "
            "--overwrite"
        )


def _picture(options: argparse.Namespace) -> Path:
    """Return where the picture goes; without --overwrite a number tells it from what is there."""
    wanted: Path | None = options.picture
    if wanted is None:
        wanted = options.out / "prediction.png"
        if ending(options.out.name) is not None:
            wanted = options.out.with_name(f"{options.out.name}_prediction.png")
    path, count = wanted, 0
    while path.exists() and not options.overwrite:
        count += 1
        path = wanted.with_name(f"{wanted.stem}_{count}{wanted.suffix}")
    return path


def _digest(path: Path) -> str:
    """Return what tells the file of a model from others."""
    with path.open("rb") as file:
        return f"sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}"


def _device(device: str | None) -> str:
    """Return the device; under torchrun the one of this process."""
    local = _environment("LOCAL_RANK", 0)
    found = devices.resolve(device)
    if device is not None or found == "cpu" or not local:
        return found
    return devices.resolve(f"cuda:{local}")


def _environment(name: str, default: int) -> int:
    """Return a number that torchrun sets."""
    text = os.environ.get(name, str(default))
    if not text.isdigit():
        raise ValueError(f"the environment variable {name} must be a number, found {text!r}")
    return int(text)


def _sizes(argument: str, given: tuple[int, ...], images: PatchExtractor) -> tuple[int, ...]:
    """Return a number per spatial axis."""
    n_dims = images.n_spatial_dims
    if len(given) == n_dims:
        return given
    if len(given) > 1:
        raise ValueError(
            f"argument {argument}: must be one number or {'Y,X' if n_dims == 2 else 'Z,Y,X'} for "
            f"these images, found {','.join(map(str, given))}"
        )
    depth = [min(given[0], min(shape[2] for shape in images.shapes))] if n_dims == 3 else []
    return (*depth, given[0], given[0])


def _overlaps(text: str) -> tuple[int, ...]:
    """Parse as a patch size, with 0."""
    try:
        found = tuple(int(number) for number in text.split(","))
    except ValueError:
        found = ()
    if not 1 <= len(found) <= 3 or min(found) < 0:
        raise argparse.ArgumentTypeError(
            f"must be one whole number of at least 0, or Y,X or Z,Y,X, found {text!r}"
        )
    return found


def _times(size: Sequence[int]) -> str:
    return "×".join(map(str, size))
